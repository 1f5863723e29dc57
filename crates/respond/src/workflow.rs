//! The state machine of one incident, from open to settled.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wardroom_domain::{
    Approval, Diagnosis, EventKind, Incident, IncidentState, Outcome, Plan, PolicyDecision, Principal, Timestamp,
};

use crate::effect::{EffectKind, EffectRequest};
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

/// An event of an incident.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The investigation started.
    InvestigationStarted,
    /// A plan was proposed.
    Proposed {
        /// The diagnosis.
        diagnosis: Diagnosis,
        /// The plan.
        plan: Box<Plan>,
        /// Signals that have to become good.
        watched: Vec<WatchedSignal>,
    },
    /// No plan can be proposed.
    NoPlan {
        /// The diagnosis.
        diagnosis: Diagnosis,
        /// The reason.
        reason: String,
    },
    /// A later diagnosis does not fit the plan.
    PlanVoided {
        /// The later diagnosis.
        diagnosis: Diagnosis,
        /// What does not fit.
        reason: String,
    },
    /// A person approved and the executor recorded it.
    Approved(Approval),
    /// A person rejected the plan.
    Rejected {
        /// The person.
        by: Principal,
        /// Their reason; may be empty.
        reason: String,
    },
    /// The plan expired without an approval.
    Expired,
    /// The executor finished.
    Executed {
        /// Outcome.
        outcome: Outcome,
        /// Detail from the target.
        detail: String,
        /// Telemetry time, in ms.
        at_ms: i64,
        /// Wall time.
        at: Timestamp,
        /// Signals that were bad at that time.
        watched: Vec<WatchedSignal>,
    },
    /// Every watched signal is good again.
    Mitigated {
        /// Telemetry time, in ms.
        at_ms: i64,
        /// Wall time.
        at: Timestamp,
    },
    /// The hold passed without a breach; telemetry time in ms.
    HoldPassed(i64),
    /// Telemetry does not show whether the action helped; it stays.
    Inconclusive {
        /// The reason.
        reason: String,
        /// Telemetry time, in ms.
        at_ms: i64,
    },
    /// Verification failed: the action did not help.
    VerificationFailed {
        /// Outcome of the undo, if the action is reversible.
        undo: Option<Outcome>,
        /// The reason.
        reason: String,
        /// Telemetry time, in ms.
        at_ms: i64,
    },
    /// A person marked the incident as noise; telemetry time in ms.
    Noise(i64),
    /// A person closed the incident.
    Closed {
        /// The person.
        by: Principal,
        /// Their reason; may be empty.
        reason: String,
        /// Telemetry time, in ms.
        at_ms: i64,
    },
}

impl Event {
    /// Returns what happened, for messages.
    const fn description(&self) -> &'static str {
        match self {
            Self::InvestigationStarted => "the start of the investigation",
            Self::Proposed { .. } => "a proposed plan",
            Self::NoPlan { .. } => "an investigation without a plan",
            Self::PlanVoided { .. } => "a plan that does not fit",
            Self::Approved(_) => "an approval",
            Self::Rejected { .. } => "a rejection",
            Self::Expired => "the expiry of the plan",
            Self::Executed { .. } => "an execution",
            Self::Mitigated { .. } => "a mitigation",
            Self::HoldPassed(_) => "the end of the hold",
            Self::Inconclusive { .. } => "an inconclusive verification",
            Self::VerificationFailed { .. } => "a failed verification",
            Self::Noise(_) => "the verdict noise",
            Self::Closed { .. } => "closing",
        }
    }
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
            IncidentState::Investigating if self.is_settle_time_over(now, watermark_ms, config) => Step::Investigate,
            IncidentState::AwaitingApproval | IncidentState::Escalated if self.is_review_due(watermark_ms, config) => {
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

    /// Whether the signals of the cause had time to arrive: by the telemetry's clock, or long ago by the wall clock.
    fn is_settle_time_over(&self, now: Timestamp, watermark_ms: i64, config: &Config) -> bool {
        let settle_ms = self.settle_ms(config);
        let wait = Duration::from_millis(settle_ms.unsigned_abs()) + Duration::from_secs(SETTLE_GRACE_SECONDS);
        watermark_ms >= self.opened_ms.saturating_add(settle_ms)
            || self.stored_at.is_some_and(|stored_at| now >= stored_at.plus(wait))
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

/// Returns the state that an event leads to, and the note for the history.
fn destination(from: IncidentState, event: &Event) -> Option<(IncidentState, String)> {
    use IncidentState as S;
    // Each event is valid in these states only, whatever transitions the table allows.
    let found = match (from, event) {
        (S::Open, Event::InvestigationStarted) => (S::Investigating, "gathering evidence".to_owned()),
        (S::Investigating | S::Escalated, Event::Proposed { plan, .. }) => {
            (S::AwaitingApproval, format!("proposed {}", plan.describe()))
        }
        (S::Investigating, Event::NoPlan { reason, .. }) => (S::Escalated, reason.clone()),
        (S::AwaitingApproval, Event::PlanVoided { reason, .. }) => {
            (S::Investigating, format!("the plan is void: {reason}"))
        }
        (S::AwaitingApproval, Event::Approved(approval)) => {
            (S::Mitigating, decided("approved", &approval.principal, &approval.reason))
        }
        (S::AwaitingApproval, Event::Rejected { by, reason }) => (S::Escalated, decided("rejected", by, reason)),
        (S::AwaitingApproval, Event::Expired) => (S::Escalated, "the plan expired without an approval".to_owned()),
        (S::Mitigating, Event::Executed { outcome: Outcome::Applied, detail, .. }) => {
            (S::Verifying, format!("executed: {detail}"))
        }
        (S::Mitigating, Event::Executed { outcome, detail, .. }) => {
            (S::Escalated, format!("execution {}: {detail}", outcome.as_str()))
        }
        (S::Verifying, Event::Mitigated { .. }) => (S::Mitigated, "every watched signal is good again".to_owned()),
        (S::Mitigated, Event::HoldPassed(_)) => (S::Resolved, "no breach within the hold".to_owned()),
        (S::Verifying | S::Mitigated, Event::Inconclusive { reason, .. }) => {
            (S::Escalated, format!("inconclusive: {reason}; the action stays"))
        }
        (S::Verifying | S::Mitigated, Event::VerificationFailed { undo, reason, .. }) => {
            let undone = undo.map_or_else(|| "nothing to undo".to_owned(), |undo| format!("undo {}", undo.as_str()));
            (S::Escalated, format!("inconclusive: {reason}; {undone}"))
        }
        (S::Escalated | S::AwaitingApproval, Event::Noise(_)) => {
            (S::Suppressed, "marked as noise by a person".to_owned())
        }
        (S::Escalated, Event::Closed { by, reason, .. }) => (S::Closed, decided("closed", by, reason)),
        _ => return None,
    };
    Some(found)
}

/// Whether a number need not be stored.
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The note of a person's decision.
fn decided(decision: &str, by: &Principal, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{decision} by {by}{reason}")
}
