//! The steps of a plan: what all of them together are to the people who approve them.
//!
//! A plan of one step is the plan of earlier versions, byte by byte. Further steps are carried out in order, each with
//! an idempotency key of its own; what was carried out is undone in reverse order. Each step acts on a target of its
//! own: its dry run, which people approve, says what it does to the state before any step.

use std::collections::BTreeSet;

use crate::canonical::sha256_hex;
use crate::plan::{DryRun, Plan, PlanStep, ToolCall};

/// Maximum number of steps of a plan.
pub const MAX_PLAN_STEPS: usize = 10;
/// Risks of tools, in ascending order; another word counts as higher than all of them.
const RISKS: [&str; 4] = ["none", "low", "medium", "high"];

impl Plan {
    /// Returns the format version of a plan with these further steps.
    pub const fn version_of(further_steps: &[PlanStep]) -> u8 {
        if further_steps.is_empty() { 1 } else { 2 }
    }

    /// Returns the call and the predicted effect of each step, in order.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = (&ToolCall, &DryRun)> + ExactSizeIterator {
        (0..self.step_count()).map(|index| match index.checked_sub(1).and_then(|index| self.further_steps.get(index)) {
            Some(step) => (&step.call, &step.dry_run),
            None => (&self.call, &self.dry_run),
        })
    }

    /// Returns the number of steps.
    pub const fn step_count(&self) -> usize {
        1 + self.further_steps.len()
    }

    /// Returns the call and the predicted effect of a step, counted from 0; `None` if there is no such step.
    pub fn step(&self, index: u32) -> Option<(&ToolCall, &DryRun)> {
        self.steps().nth(usize::try_from(index).ok()?)
    }

    /// Returns the idempotency key that a step, counted from 0, sends to its target; the same on every attempt.
    ///
    /// # Errors
    /// See [`Plan::sha256`].
    pub fn step_key(&self, index: u32) -> Result<String, String> {
        if index == 0 {
            return self.idempotency_key();
        }
        let mut key = sha256_hex(format!("{}:{index}", self.sha256()?).as_bytes());
        key.truncate(32);
        Ok(key)
    }

    /// Returns what is done, one line: `process restart of cart, then exec drain of queue`.
    pub fn describe(&self) -> String {
        self.steps().map(|(call, _)| call.describe()).collect::<Vec<_>>().join(", then ")
    }

    /// Returns what a step is called in messages: its call, after its number if there are several.
    pub fn describe_step(&self, index: u32) -> String {
        let call = self.step(index).map(|(call, _)| call.describe()).unwrap_or_default();
        match self.step_count() {
            1 => call,
            count => format!("step {} of {count}, {call}", u64::from(index) + 1),
        }
    }

    /// Returns the changes of all steps, one line.
    pub fn diff(&self) -> String {
        self.join_steps(|dry_run| &dry_run.diff)
    }

    /// Returns who is affected by any of the steps, one line.
    pub fn blast_radius(&self) -> String {
        self.join_steps(|dry_run| &dry_run.blast_radius)
    }

    fn join_steps(&self, text: fn(&DryRun) -> &String) -> String {
        if self.further_steps.is_empty() {
            return text(&self.dry_run).clone();
        }
        let numbered = self.steps().enumerate();
        let lines: Vec<_> = numbered.map(|(index, (_, dry_run))| format!("{}. {}", index + 1, text(dry_run))).collect();
        lines.join("; ")
    }

    /// Returns the highest risk of the steps.
    pub fn risk(&self) -> &str {
        let rank = |risk: &str| RISKS.iter().position(|known| *known == risk).unwrap_or(RISKS.len());
        let risks = self.steps().map(|(_, dry_run)| dry_run.risk.as_str());
        // Of equal ones the first.
        risks.rev().max_by_key(|risk| rank(risk)).unwrap_or_default()
    }

    /// Returns whether every step can be undone.
    pub fn is_reversible(&self) -> bool {
        self.steps().all(|(_, dry_run)| dry_run.reversible)
    }

    /// Returns whether any step has an undo.
    pub fn has_undo(&self) -> bool {
        self.steps().any(|(_, dry_run)| dry_run.undo.is_some())
    }
}

impl ToolCall {
    /// Returns the call without its arguments, one line: `process restart of cart`.
    pub fn describe(&self) -> String {
        format!("{} {} of {}", self.tool, self.operation, self.target)
    }
}

/// Returns why calls cannot be the steps of one plan: there are too many, or two act on the same target.
pub fn unfit_steps<'a>(calls: impl IntoIterator<Item = &'a ToolCall>) -> Option<String> {
    let (mut targets, mut count) = (BTreeSet::new(), 0);
    for call in calls {
        count += 1;
        if !targets.insert((&call.tool, &call.target)) {
            return Some(format!(
                "two steps act on {} {}; a dry run cannot tell what the second one finds there: make them one \
                 operation, or two runbooks",
                call.tool, call.target
            ));
        }
    }
    (count > MAX_PLAN_STEPS).then(|| format!("a plan has at most {MAX_PLAN_STEPS} steps, and this one has {count}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TenantId, Timestamp};

    fn step(target: &str, risk: &str, undo: bool) -> PlanStep {
        let (tool, operation) = ("process".to_owned(), "restart".to_owned());
        let call = ToolCall { tool, operation, target: target.into(), arguments: Default::default() };
        let dry_run = DryRun {
            diff: format!("{target} restarts"),
            blast_radius: target.into(),
            affected: None,
            risk: risk.into(),
            reversible: undo,
            precondition: "1".into(),
            undo: undo.then(|| call.clone()),
        };
        PlanStep { call, dry_run }
    }

    fn plan(steps: &[PlanStep]) -> Plan {
        let PlanStep { call, dry_run } = steps[0].clone();
        Plan {
            version: Plan::version_of(&steps[1..]),
            tenant: TenantId::main(),
            incident: "k".into(),
            call,
            dry_run,
            further_steps: steps[1..].to_vec(),
            runbook: "r".into(),
            control: "none".into(),
            expires_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_plan_is_the_worst_of_its_steps() {
        let one = plan(&[step("a", "low", true)]);
        assert_eq!((one.version, one.step_count(), one.risk(), one.is_reversible()), (1, 1, "low", true));
        assert_eq!((one.describe().as_str(), one.diff().as_str()), ("process restart of a", "a restarts"));
        assert_eq!(one.describe_step(0), "process restart of a");
        let several = plan(&[step("a", "low", true), step("b", "high", false), step("c", "medium", true)]);
        assert_eq!((several.version, several.risk(), several.is_reversible()), (2, "high", false));
        assert!(several.has_undo());
        assert_eq!(several.describe(), "process restart of a, then process restart of b, then process restart of c");
        assert_eq!(several.diff(), "1. a restarts; 2. b restarts; 3. c restarts");
        assert_eq!(several.describe_step(1), "step 2 of 3, process restart of b");
        assert_eq!(plan(&[step("a", "high", true), step("b", "odd", true)]).risk(), "odd");
        assert!(several.step(3).is_none());
    }

    #[test]
    fn every_step_has_a_key_of_its_own() {
        let plan = plan(&[step("a", "low", true), step("b", "low", true), step("c", "low", true)]);
        let keys: BTreeSet<String> = (0..3).map(|index| plan.step_key(index).unwrap()).collect();
        assert!(keys.len() == 3 && keys.iter().all(|key| key.len() == 32), "{keys:?}");
        assert_eq!(plan.step_key(0), plan.idempotency_key());
    }

    #[test]
    fn steps_have_targets_of_their_own_and_are_few() {
        let calls = |names: &[&str]| names.iter().map(|name| step(name, "low", true).call).collect::<Vec<_>>();
        assert_eq!(unfit_steps(&calls(&["a", "b"])), None);
        assert!(unfit_steps(&calls(&["a", "b", "a"])).unwrap().contains("process a"));
        let many: Vec<String> = (0..11).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(unfit_steps(&calls(&many)).unwrap().contains("at most 10"));
    }
}
