//! When an incident is diagnosed again, and what a later diagnosis changes.
//!
//! Early telemetry shows symptoms before causes. So an incident is diagnosed when it opens, again at fixed times after
//! that, and when correlation adds to it, as long as no plan is approved. A later diagnosis replaces the earlier one,
//! voids a plan that no longer fits, and may propose one for an incident that was escalated without a plan.

use wardroom_domain::{Diagnosis, IncidentState, Plan};

use crate::Config;
use crate::event::Event;
use crate::workflow::Workflow;

/// Times after the opening at which an incident is diagnosed again, in ms of telemetry time.
const REVIEW_MS: [i64; 3] = [30_000, 120_000, 300_000];
/// Maximum number of diagnoses of an incident.
const MAX_INVESTIGATIONS: u32 = 100;

impl Workflow {
    /// Whether a later diagnosis may still change what is proposed.
    pub fn is_reviewable(&self) -> bool {
        self.is_undecided() && self.investigated_ms.is_some() && self.investigations < MAX_INVESTIGATIONS
    }

    /// Whether a plan is pending or missing: none is approved, rejected or expired.
    pub(crate) fn is_undecided(&self) -> bool {
        match self.state {
            IncidentState::AwaitingApproval => self.approval.is_none(),
            IncidentState::Escalated => self.plan.is_none() && self.approval.is_none(),
            IncidentState::Open
            | IncidentState::Investigating
            | IncidentState::Mitigating
            | IncidentState::Verifying
            | IncidentState::Mitigated
            | IncidentState::Resolved
            | IncidentState::Suppressed
            | IncidentState::Closed => false,
        }
    }

    /// Returns the telemetry time, in ms, from which the incident is to be diagnosed again.
    pub(crate) fn review_due_ms(&self, config: &Config) -> Option<i64> {
        let investigated_ms = self.investigated_ms.filter(|_| self.is_reviewable())?;
        let times = REVIEW_MS.map(|after_ms| self.opened_ms.saturating_add(after_ms));
        let next = times.into_iter().filter(|due_ms| investigated_ms < *due_ms).min();
        let has_evidence = self.evidence != self.investigated_evidence;
        let settled = has_evidence.then(|| investigated_ms.saturating_add(self.settle_ms(config)));
        next.into_iter().chain(settled).min()
    }

    /// Notes that a diagnosis was made from the telemetry up to `watermark_ms` and the evidence so far.
    pub fn record_investigation(&mut self, watermark_ms: i64) {
        self.investigations = self.investigations.saturating_add(1);
        self.investigated_ms = Some(watermark_ms);
        self.investigated_evidence = self.evidence;
    }

    /// Compares a later investigation, an [`Event::Proposed`] or [`Event::NoPlan`], with the earlier one. Returns the
    /// event to apply; `None` if only the diagnosis changes, which is done.
    pub fn review(&mut self, investigation: Event) -> Option<Event> {
        match investigation {
            Event::Proposed { diagnosis, plan, watched } if self.state == IncidentState::AwaitingApproval => {
                let same_steps = |pending: &Plan| {
                    let mut both = pending.steps().zip(plan.steps());
                    pending.step_count() == plan.step_count()
                        && both.all(|(old, new)| old.0 == new.0 && old.1.precondition == new.1.precondition)
                };
                if !self.plan.as_ref().is_some_and(same_steps) {
                    let reason = format!("now {} fits", plan.describe());
                    return Some(Event::PlanVoided { diagnosis, reason });
                }
                (self.diagnosis, self.watched) = (Some(diagnosis), watched);
                None
            }
            Event::NoPlan { diagnosis, reason } if self.state == IncidentState::AwaitingApproval => {
                let cause =
                    |diagnosis: &Diagnosis| diagnosis.best().map(|best| (best.entity.clone(), best.rule.clone()));
                if self.diagnosis.as_ref().and_then(cause) != cause(&diagnosis) {
                    return Some(Event::PlanVoided { diagnosis, reason });
                }
                self.diagnosis = Some(diagnosis);
                None
            }
            Event::NoPlan { diagnosis, .. } if self.state == IncidentState::Escalated => {
                self.diagnosis = Some(diagnosis);
                None
            }
            event => Some(event),
        }
    }
}
