//! A plan whose dry run is not finished: from the diagnosis that asks for it to the proposal.
//!
//! The target may take long to answer, or never answer. The incident waits for it without holding up anything: a
//! pending plan stays approvable, people can decide, and later evidence is diagnosed once the dry run has ended.

use wardroom_domain::{Cause, DryRun, IncidentState, Plan, TenantId, Timestamp};

use crate::effect::EffectRequest;
use crate::pending::PendingPlan;
use crate::setting_check::unconfirmed_setting;
use crate::workflow::{Event, Workflow};

impl Workflow {
    /// Keeps a plan until its dry run is finished, and returns the dry run.
    pub fn request_dry_run(&mut self, pending: PendingPlan) -> EffectRequest {
        let pending = PendingPlan { number: self.investigations, ..pending };
        let request = self.dry_run_request(&pending);
        self.pending = Some(pending);
        request
    }

    pub(crate) fn dry_run_request(&self, pending: &PendingPlan) -> EffectRequest {
        EffectRequest::dry_run(&self.incident.key, pending.number, &pending.call)
    }

    /// Takes the pending plan with the result of its dry run, or the reason why there is none. Returns the event to
    /// consider with [`Workflow::proposed`]; `None` if nothing waits for this dry run any more.
    pub fn dry_run_finished(
        &mut self,
        effect_id: &str,
        result: Result<DryRun, String>,
        tenant: &TenantId,
        expires_at: Timestamp,
    ) -> Option<Event> {
        let pending = self.pending.take_if(|pending| {
            EffectRequest::dry_run(&self.incident.key, pending.number, &pending.call).id == effect_id
        })?;
        let PendingPlan { diagnosis, call, runbook, control, watched, .. } = pending;
        let dry_run = match result {
            Ok(dry_run) => dry_run,
            Err(reason) => {
                let reason =
                    format!("{} {} of {} cannot be executed: {reason}", call.tool, call.operation, call.target);
                return Some(Event::NoPlan { diagnosis, reason });
            }
        };
        if let Some(reason) = diagnosis.best().and_then(|best| unconfirmed_setting(best, &dry_run)) {
            return Some(Event::NoPlan { diagnosis, reason });
        }
        let plan = Plan {
            version: 1,
            tenant: tenant.clone(),
            incident: self.incident.key.clone(),
            call,
            dry_run,
            runbook,
            control,
            expires_at,
        };
        Some(Event::Proposed { diagnosis, plan: Box::new(plan), watched })
    }

    /// Returns the event to apply after a diagnosis, an [`Event::Proposed`] or [`Event::NoPlan`]: itself for the first
    /// one, and for a later one what [`Workflow::review`] makes of it.
    pub fn proposed(&mut self, event: Event) -> Option<Event> {
        if self.state == IncidentState::Investigating { Some(event) } else { self.review(event) }
    }
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
