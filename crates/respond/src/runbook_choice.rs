//! Which action of a runbook fits: by what its checks have read.

use wardroom_domain::{ActionChoice, Evidence};

use crate::pending::{PendingPlan, PendingRead};

/// Start of the ids of evidence that a check has read.
const EVIDENCE_PREFIX: &str = "check:";

impl PendingPlan {
    /// Whether a check has no result.
    pub(crate) fn is_reading(&self) -> bool {
        self.reads.iter().any(|read| read.result.is_none())
    }

    /// Adds the results of the checks to the diagnosis, as evidence for its most likely cause.
    pub(crate) fn cite_checks(&mut self) {
        let Some(best) = self.diagnosis.causes.first_mut() else { return };
        for PendingRead { check, result } in &self.reads {
            let Some(result) = result else { continue };
            let id = format!("{EVIDENCE_PREFIX}{}", check.id);
            let summary = format!("{} {}", check.question, result.summary());
            best.evidence.push(id.clone());
            let (entity, at) = (best.entity.clone(), result.at);
            self.diagnosis.evidence.push(Evidence { id, entity, at, summary });
        }
    }

    /// Chooses the first action whose conditions hold.
    ///
    /// # Errors
    /// Returns why there is none: no action fits, or it cannot be told whether a preferred one does.
    pub(crate) fn choose(&mut self) -> Result<(), String> {
        if self.call.is_some() {
            return Ok(());
        }
        let mut failed = Vec::new();
        for choice in std::mem::take(&mut self.choices) {
            match self.fits(&choice) {
                Ok(true) => {
                    let mut steps = choice.steps.into_iter();
                    self.call = steps.next();
                    self.further_calls = steps.collect();
                    return Ok(());
                }
                Ok(false) => failed.extend(choice.when.iter().map(wardroom_domain::Condition::describe)),
                Err(reason) => return Err(format!("runbook {}: {reason}; a person must decide", self.runbook)),
            }
        }
        let failed = if failed.is_empty() { "it has none".to_owned() } else { failed.join("; ") };
        Err(format!("no action of runbook {} fits what was checked: not all of these hold: {failed}", self.runbook))
    }

    /// Whether all conditions of an action hold; an error says why that is not known. One that certainly does not hold
    /// decides, whatever is not known of the others.
    fn fits(&self, choice: &ActionChoice) -> Result<bool, String> {
        let mut unknown = None;
        for condition in &choice.when {
            let read = self.reads.iter().find(|read| read.check.id == condition.read);
            let result = read.and_then(|read| read.result.as_ref());
            let holds = result.and_then(|result| result.value.as_ref()).and_then(|value| condition.holds(value));
            match holds {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => {
                    let found = result.map_or_else(|| "not read".to_owned(), wardroom_domain::CheckResult::summary);
                    unknown.get_or_insert_with(|| format!("whether {} cannot be told ({found})", condition.describe()));
                }
            }
        }
        unknown.map_or(Ok(true), Err)
    }
}
