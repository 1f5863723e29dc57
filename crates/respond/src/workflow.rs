//! The state machine of one incident, from open to settled.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wardroom_domain::{
    Approval, Diagnosis, EventKind, Incident, IncidentState, Outcome, Plan, PolicyDecision, Timestamp,
};

use crate::due::Due;
use crate::effect::{EffectKind, EffectRequest};
use crate::event::{Event, destination};
use crate::pending::PendingPlan;
use crate::step_result::StepResult;
use crate::{Config, WatchedSignal};

/// Longest interval of a signal that the first diagnosis waits for, in ms.
const MAX_SETTLE_INTERVAL_MS: i64 = 15_000;
/// The first diagnosis waits for telemetry until this long after the settle time by the wall clock, in seconds.
const SETTLE_GRACE_SECONDS: u64 = 3;

/// State of the response to one incident. Persisted as JSON, format version 2: field names are the format. Fields that
/// version 1 lacks have defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Format version.
    pub version: u8,
    /// The incident.
    pub incident: Incident,
    /// Current state.
    pub state: IncidentState,
    /// Diagnosis, once made.
    pub diagnosis: Option<Diagnosis>,
    /// The proposed plan.
    pub plan: Option<Plan>,
    /// Hash of the plan.
    pub plan_sha256: Option<String>,
    /// Signals that have to become good again.
    pub watched: Vec<WatchedSignal>,
    /// The answer of the policy about the plan; absent for plans of builds without a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyDecision>,
    /// Wall time of the proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed_at: Option<Timestamp>,
    /// A plan whose checks and dry runs are not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingPlan>,
    /// Number of steps of the escalation route that are done for the plan.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub escalation_step: u32,
    /// Approvals of a plan that needs further ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial_approvals: Vec<Approval>,
    /// The approval that completed the plan's.
    pub approval: Option<Approval>,
    /// Secret whose SHA-256 the executor records with the approval: the proof for an undo. Absent before a plan is
    /// proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_secret: Option<String>,
    /// The steps that have ended, of a plan of several; empty for a plan of one step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepResult>,
    /// Outcome of the execution, of all steps.
    pub execution: Option<Outcome>,
    /// Why the action is being undone, until the undo has an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoing: Option<String>,
    /// Outcome of the undo, if there was one.
    pub undo: Option<Outcome>,
    /// Whether the action helped; `None` if it was not carried out, or telemetry does not show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helped: Option<bool>,
    /// The change of the entity at fault that telemetry shows after a proposal that was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people_did: Option<EventKind>,
    /// Final outcome: `resolved`, `inconclusive`, `escalated`, `rejected`, `noise`.
    pub outcome: Option<String>,
    /// Verdict of a person: `real`, `noise` or `wrong_cause`, and the actual cause.
    pub verdict: Option<(String, Option<String>)>,
    /// Telemetry time when it opened, in ms; diagnosis starts `settle-seconds` later.
    pub opened_ms: i64,
    /// Wall time when it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<Timestamp>,
    /// How often it was reopened.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopened: u32,
    /// Id of the data folder whose server opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Number of diagnoses.
    #[serde(default)]
    pub investigations: u32,
    /// Telemetry time of the newest diagnosis, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub investigated_ms: Option<i64>,
    /// Number of changes by correlation: entities that joined, new titles and severities.
    #[serde(default)]
    pub evidence: u32,
    /// [`Workflow::evidence`] at the newest diagnosis.
    #[serde(default)]
    pub investigated_evidence: u32,
    /// Telemetry time of the execution, in ms.
    pub executed_ms: Option<i64>,
    /// Wall time of the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_at: Option<Timestamp>,
    /// Telemetry time of the mitigation, in ms.
    pub mitigated_ms: Option<i64>,
    /// Wall time of the mitigation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mitigated_at: Option<Timestamp>,
    /// Telemetry time when it was settled or closed, in ms: findings that begin later open another incident.
    pub settled_ms: Option<i64>,
}

/// What the response does next for an incident by itself. What it wants done outside, it asks for with
/// [`StateChange::effects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, now or at all: the incident waits for an effect, a person or telemetry, or it is settled.
    Wait,
    /// Change the state to `investigating`.
    StartInvestigation,
    /// Diagnose, and ask for a dry run of the action that a runbook has for the cause.
    Investigate,
    /// Diagnose again; see [`Workflow::review`].
    Review,
    /// Expire the plan.
    Expire,
    /// Verify the telemetry since the action.
    Verify,
}

/// A change of an incident's state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// Previous state.
    pub from: IncidentState,
    /// New state.
    pub to: IncidentState,
    /// Note for the history, one line.
    pub note: String,
    /// Effects that the change wants, to be written with it.
    pub effects: Vec<EffectRequest>,
    /// Kinds of the incident's effects that are no longer wanted.
    pub cancelled: Vec<EffectKind>,
}

/// An event that is not valid in the current state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an incident that is {state} does not allow {event}")]
pub struct WorkflowError {
    state: IncidentState,
    event: &'static str,
}

/// Why a persisted workflow cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkflowReadError {
    /// Written by a newer version.
    #[error("the workflow has format {0}; this build reads up to {FORMAT_VERSION}: run the newer Wardroom")]
    Newer(u64),
    /// Not valid JSON, or not a workflow.
    #[error("the workflow is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// Format version that this build writes.
const FORMAT_VERSION: u8 = 2;

impl Workflow {
    /// Parses a persisted workflow of this or an older format version.
    ///
    /// # Errors
    /// See [`WorkflowReadError`].
    pub fn read(text: &str) -> Result<Self, WorkflowReadError> {
        let document: serde_json::Value = serde_json::from_str(text)?;
        match document["version"].as_u64() {
            Some(version) if version > u64::from(FORMAT_VERSION) => Err(WorkflowReadError::Newer(version)),
            _ => Ok(Self { version: FORMAT_VERSION, ..serde_json::from_value(document)? }),
        }
    }

    /// Creates the workflow of a new incident.
    pub fn new(incident: Incident) -> Self {
        let opened_ms = incident.opened_at.millis();
        Self {
            version: FORMAT_VERSION,
            incident,
            state: IncidentState::Open,
            diagnosis: None,
            plan: None,
            plan_sha256: None,
            watched: Vec::new(),
            policy: None,
            proposed_at: None,
            pending: None,
            escalation_step: 0,
            partial_approvals: Vec::new(),
            approval: None,
            undo_secret: None,
            steps: Vec::new(),
            execution: None,
            undoing: None,
            undo: None,
            helped: None,
            people_did: None,
            outcome: None,
            verdict: None,
            opened_ms,
            stored_at: None,
            reopened: 0,
            home: None,
            investigations: 0,
            investigated_ms: None,
            evidence: 0,
            investigated_evidence: 0,
            executed_ms: None,
            executed_at: None,
            mitigated_ms: None,
            mitigated_at: None,
            settled_ms: None,
        }
    }

    /// Returns the next step. `now` is the wall clock (for expiry), `watermark_ms` is telemetry time.
    pub fn next(&self, now: Timestamp, watermark_ms: i64, config: &Config) -> Step {
        match self.state {
            IncidentState::Open => Step::StartInvestigation,
            IncidentState::AwaitingApproval if self.plan.as_ref().is_some_and(|plan| plan.expires_at <= now) => {
                Step::Expire
            }
            // A diagnosis waits for its checks and dry runs.
            _ if self.pending.is_some() => Step::Wait,
            IncidentState::Investigating if self.settle_due(config).is_past(now, watermark_ms) => Step::Investigate,
            IncidentState::AwaitingApproval | IncidentState::Escalated
                if self.review_due_ms(config).is_some_and(|due_ms| watermark_ms >= due_ms) =>
            {
                Step::Review
            }
            IncidentState::Verifying | IncidentState::Mitigated if self.undoing.is_none() => Step::Verify,
            IncidentState::Investigating
            | IncidentState::AwaitingApproval
            | IncidentState::Mitigating
            | IncidentState::Verifying
            | IncidentState::Mitigated
            | IncidentState::Resolved
            | IncidentState::Suppressed
            | IncidentState::Escalated
            | IncidentState::Closed => Step::Wait,
        }
    }

    /// When the signals of the cause have had time to arrive: by the telemetry's clock, or later by the wall clock.
    pub(crate) fn settle_due(&self, config: &Config) -> Due {
        let settle_ms = self.settle_ms(config);
        let wait = Duration::from_millis(settle_ms.unsigned_abs()) + Duration::from_secs(SETTLE_GRACE_SECONDS);
        Due {
            at: self.stored_at.map(|stored_at| stored_at.plus(wait)),
            watermark_ms: Some(self.opened_ms.saturating_add(settle_ms)),
        }
    }

    pub(crate) fn settle_ms(&self, config: &Config) -> i64 {
        let interval_ms = self.incident.interval_ms.clamp(0, MAX_SETTLE_INTERVAL_MS);
        interval_ms.max((config.settle_seconds * 1000.0) as i64)
    }

    /// Applies an event and returns the state change.
    ///
    /// # Errors
    /// Returns an error if the event is not valid in the current state; the workflow is unchanged then.
    pub fn apply(&mut self, event: Event) -> Result<StateChange, WorkflowError> {
        let from = self.state;
        // A plan that was rejected, expired or executed is not followed by another one.
        let is_late = from == IncidentState::Escalated && !self.is_undecided();
        let is_refused = is_late && matches!(event, Event::Proposed { .. });
        let (to, note) = destination(from, &event)
            .filter(|(to, _)| from.can_transition_to(*to) && !is_refused)
            .ok_or_else(|| WorkflowError { state: from, event: event.description() })?;
        match event {
            Event::InvestigationStarted => {}
            Event::Closed { at_ms, .. } => self.settled_ms = Some(at_ms),
            Event::PlanVoided { diagnosis, .. } => {
                self.diagnosis = Some(diagnosis);
                (self.plan, self.plan_sha256, self.undo_secret) = (None, None, None);
                self.forget_decisions();
                self.watched.clear();
            }
            Event::Proposed { diagnosis, plan, watched } => {
                self.outcome = None;
                self.diagnosis = Some(diagnosis);
                self.plan_sha256 = plan.sha256().ok();
                self.plan = Some(*plan);
                self.watched = watched;
            }
            Event::NoPlan { diagnosis, .. } => {
                self.diagnosis = Some(diagnosis);
                self.outcome = Some("escalated".into());
            }
            Event::Approved(approval) => self.approval = Some(approval),
            Event::Rejected { .. } => self.outcome = Some("rejected".into()),
            Event::Expired => self.outcome = Some("escalated".into()),
            Event::Executed { outcome, at_ms, at, watched, .. } => {
                self.execution = Some(outcome);
                (self.executed_ms, self.executed_at) = (Some(at_ms), Some(at));
                for signal in watched {
                    if !self.watched.iter().any(|known| known.signal == signal.signal) {
                        self.watched.push(signal);
                    }
                }
                if to == IncidentState::Escalated {
                    self.outcome = Some("escalated".into());
                    self.undo = self.undo_outcome();
                }
            }
            Event::Mitigated { at_ms, at } => {
                (self.mitigated_ms, self.mitigated_at) = (Some(at_ms), Some(at));
            }
            Event::HoldPassed(at_ms) => {
                self.helped = Some(true);
                self.settled_ms = Some(at_ms);
                self.outcome = Some("resolved".into());
            }
            Event::Inconclusive { .. } => self.outcome = Some("inconclusive".into()),
            Event::VerificationFailed { undo, .. } => {
                self.helped = Some(false);
                self.undo = undo;
                self.outcome = Some("inconclusive".into());
            }
            Event::Noise(at_ms) => {
                self.settled_ms = Some(at_ms);
                self.outcome = Some("noise".into());
            }
            Event::Reopened { at_ms, at, .. } => self.begin_again(at_ms, at),
        }
        self.state = to;
        let (effects, cancelled) = self.effects_of(from, to);
        Ok(StateChange { from, to, note, effects, cancelled })
    }

    /// Notes the policy's answer about the plan that is proposed next.
    pub fn record_policy(&mut self, decision: PolicyDecision) {
        self.forget_decisions();
        self.policy = Some(decision);
    }

    /// Takes an approval. Returns the event to apply if the plan has all that it needs; else it is kept, and the caller
    /// saves the workflow.
    pub fn add_approval(&mut self, approval: Approval) -> Option<Event> {
        let known = self.partial_approvals.iter().filter(|known| known.principal != approval.principal).count();
        let needed = self.policy.as_ref().and_then(|decision| decision.answer.approvals()).unwrap_or(1);
        if known + 1 >= needed {
            return Some(Event::Approved(approval));
        }
        if known == self.partial_approvals.len() {
            self.partial_approvals.push(approval);
        }
        None
    }

    /// Returns everyone who has approved the plan, in order.
    pub fn approvals(&self) -> impl Iterator<Item = &Approval> {
        self.partial_approvals.iter().chain(&self.approval)
    }

    /// Forgets what was decided about another plan.
    fn forget_decisions(&mut self) {
        (self.policy, self.escalation_step) = (None, 0);
        self.partial_approvals.clear();
    }
}

/// Whether a number need not be stored.
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
