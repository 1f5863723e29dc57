//! A plan whose checks and dry runs are not finished: from the diagnosis that asks for it to the proposal.
//!
//! A target may take long to answer, or never answer. The incident waits for it without holding up anything: a pending
//! plan stays approvable, people can decide, and later evidence is diagnosed once the dry runs have ended. The checks
//! of the runbook come first, all at once; their results choose the action; then each of its steps has a dry run.

use wardroom_domain::{Cause, CheckResult, DryRun, IncidentState, Plan, PlanStep, TenantId, Timestamp, unfit_steps};

use crate::effect::EffectRequest;
use crate::event::Event;
use crate::pending::PendingPlan;
use crate::setting_check::unconfirmed_setting;
use crate::workflow::Workflow;

/// How far a pending plan is after one of its effects has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanProgress {
    /// Nothing waits for the effect any more.
    Nothing,
    /// The plan waits for these effects, or for earlier ones if there are none; the caller saves the workflow with
    /// them.
    Pending(Vec<EffectRequest>),
    /// It has ended in an event to consider with [`Workflow::proposed`].
    Ended(Event),
}

impl Workflow {
    /// Keeps a plan until its checks and dry runs are finished, and asks for them.
    pub fn request_plan(&mut self, pending: PendingPlan) -> PlanProgress {
        self.pending = Some(PendingPlan { number: self.investigations, ..pending });
        self.go_on_with_plan()
    }

    /// Takes the result of a check.
    pub fn read_finished(&mut self, effect_id: &str, result: CheckResult) -> PlanProgress {
        let key = &self.incident.key;
        let Some(pending) = &mut self.pending else { return PlanProgress::Nothing };
        let number = pending.number;
        let is_this = |read: &&mut crate::pending::PendingRead| {
            read.result.is_none() && EffectRequest::read(key, number, &read.check).id == effect_id
        };
        let Some(read) = pending.reads.iter_mut().find(is_this) else { return PlanProgress::Nothing };
        let text = format!("checked {}: {} {}", read.check.call.describe(), read.check.question, result.summary());
        let at = result.at;
        read.result = Some(result);
        let is_reading = pending.is_reading();
        self.incident.record(at, text);
        if is_reading {
            return PlanProgress::Pending(Vec::new());
        }
        if let Some(pending) = &mut self.pending {
            pending.cite_checks();
        }
        self.go_on_with_plan()
    }

    /// Takes the result of a dry run, or the reason why there is none. The plan ends with the last one.
    pub fn dry_run_finished(
        &mut self,
        effect_id: &str,
        result: Result<DryRun, String>,
        tenant: &TenantId,
        expires_at: Timestamp,
    ) -> PlanProgress {
        let requests = self.pending.as_ref().map(|pending| self.dry_run_requests(pending)).unwrap_or_default();
        let step = requests.iter().find(|(_, request)| request.id == effect_id).map(|(step, _)| *step);
        let Some(step) = step else { return PlanProgress::Nothing };
        let Some(mut pending) = self.pending.take() else { return PlanProgress::Nothing };
        let count = pending.steps().count();
        match result {
            Ok(dry_run) => pending.dry_runs.insert(step, dry_run),
            Err(reason) => {
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                let call = pending.steps().nth(step).map(|(_, call)| call.describe()).unwrap_or_default();
                let of_step = if count > 1 { format!(" (step {} of {count})", step + 1) } else { String::new() };
                let reason = format!("{call}{of_step} cannot be executed: {reason}");
                return PlanProgress::Ended(Event::NoPlan { diagnosis: pending.diagnosis, reason });
            }
        };
        if pending.dry_runs.len() < count {
            self.pending = Some(pending);
            return PlanProgress::Pending(Vec::new());
        }
        PlanProgress::Ended(proposal(&self.incident.key, pending, tenant, expires_at))
    }

    /// Asks for what the pending plan needs next: its checks, or the dry runs of the action that they choose.
    fn go_on_with_plan(&mut self) -> PlanProgress {
        let Some(mut pending) = self.pending.take() else { return PlanProgress::Nothing };
        if !pending.is_reading() {
            let unfit = |pending: &PendingPlan| unfit_steps(pending.steps().map(|(_, call)| call));
            let chosen = pending.choose().and_then(|()| unfit(&pending).map_or(Ok(()), Err));
            if let Err(reason) = chosen {
                return PlanProgress::Ended(Event::NoPlan { diagnosis: pending.diagnosis, reason });
            }
        }
        let requests = self.pending_requests(&pending);
        self.pending = Some(pending);
        PlanProgress::Pending(requests)
    }

    /// Returns the effects that a pending plan waits for.
    pub(crate) fn pending_requests(&self, pending: &PendingPlan) -> Vec<EffectRequest> {
        if pending.is_reading() {
            let open = pending.reads.iter().filter(|read| read.result.is_none());
            return open.map(|read| EffectRequest::read(&self.incident.key, pending.number, &read.check)).collect();
        }
        self.dry_run_requests(pending).into_iter().map(|(_, request)| request).collect()
    }

    /// Returns the dry runs that have not ended, with their steps.
    fn dry_run_requests(&self, pending: &PendingPlan) -> Vec<(u32, EffectRequest)> {
        let open = pending.steps().filter(|(step, _)| !pending.dry_runs.contains_key(step));
        open.map(|(step, call)| (step, EffectRequest::dry_run(&self.incident.key, pending.number, (step, call))))
            .collect()
    }

    /// Returns the event to apply after a diagnosis, an [`Event::Proposed`] or [`Event::NoPlan`]: itself for the first
    /// one, and for a later one what [`Workflow::review`] makes of it.
    pub fn proposed(&mut self, event: Event) -> Option<Event> {
        if self.state == IncidentState::Investigating { Some(event) } else { self.review(event) }
    }
}

/// Proposes the plan whose dry runs have all ended, or says why not.
fn proposal(incident: &str, mut pending: PendingPlan, tenant: &TenantId, expires_at: Timestamp) -> Event {
    let dry_runs = std::mem::take(&mut pending.dry_runs).into_values();
    let calls = pending.call.take().into_iter().chain(std::mem::take(&mut pending.further_calls));
    let mut steps = calls.zip(dry_runs).map(|(call, dry_run)| PlanStep { call, dry_run });
    let PendingPlan { diagnosis, runbook, control, watched, .. } = pending;
    let Some(first) = steps.next() else {
        return Event::NoPlan { diagnosis, reason: "no action was chosen".to_owned() };
    };
    let further_steps: Vec<PlanStep> = steps.collect();
    let unconfirmed = |step: &PlanStep| diagnosis.best().and_then(|best| unconfirmed_setting(best, &step.dry_run));
    // One of the steps puts the setting back.
    if let Some(reason) = unconfirmed(&first)
        && further_steps.iter().all(|step| unconfirmed(step).is_some())
    {
        return Event::NoPlan { diagnosis, reason };
    }
    let plan = Plan {
        version: Plan::version_of(&further_steps),
        tenant: tenant.clone(),
        incident: incident.to_owned(),
        call: first.call,
        dry_run: first.dry_run,
        further_steps,
        runbook,
        control,
        expires_at,
    };
    Event::Proposed { diagnosis, plan: Box::new(plan), watched }
}

/// Returns why the most likely cause is not acted on, whatever runbook there is for it; `None` if it may be.
/// `min_confidence` is between 0 and 1.
pub fn reason_not_to_act(best: &Cause, min_confidence: f64) -> Option<String> {
    if let Some(reservation) = &best.reservation {
        return Some(reservation.clone());
    }
    if best.confidence >= min_confidence {
        return None;
    }
    Some(format!(
        "the most likely cause, {} at {}, is not certain enough to act on ({:.0} %)",
        best.rule,
        best.entity,
        best.confidence * 100.0
    ))
}
