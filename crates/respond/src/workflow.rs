//! The state machine of one incident, from open to settled.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Approval, Diagnosis, Incident, IncidentState, Outcome, Plan, Principal, Timestamp};

use crate::{Config, WatchedSignal};

/// State of the response to one incident. Persisted as JSON, format version 1: field names are the format.
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
    /// The approval of the plan.
    pub approval: Option<Approval>,
    /// Secret whose SHA-256 the executor records with the approval: the proof for an undo. Absent before a plan is
    /// proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_secret: Option<String>,
    /// Outcome of the execution.
    pub execution: Option<Outcome>,
    /// Outcome of the undo, if there was one.
    pub undo: Option<Outcome>,
    /// Final outcome: `resolved`, `inconclusive`, `escalated`, `rejected`, `noise`.
    pub outcome: Option<String>,
    /// Verdict of a person: `real`, `noise` or `wrong_cause`, and the actual cause.
    pub verdict: Option<(String, Option<String>)>,
    /// Telemetry time when it opened, in ms; diagnosis starts `settle-seconds` later.
    pub opened_ms: i64,
    /// Telemetry time of the execution, in ms.
    pub executed_ms: Option<i64>,
    /// Telemetry time of the mitigation, in ms.
    pub mitigated_ms: Option<i64>,
    /// Telemetry time when it was settled, in ms.
    pub settled_ms: Option<i64>,
}

/// The next effect to perform for an incident. All effects are idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing to do, now or at all.
    Wait,
    /// Change the state to `investigating`.
    StartInvestigation,
    /// Diagnose, select a runbook, dry-run its action, propose a plan.
    Investigate,
    /// Ask the executor for an approval that it recorded before a crash.
    AwaitApproval,
    /// Expire the plan.
    Expire,
    /// Send the plan to the executor for execution.
    Execute,
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
        /// Signals that were bad at that time.
        watched: Vec<WatchedSignal>,
    },
    /// Every watched signal is good again; telemetry time in ms.
    Mitigated(i64),
    /// The hold passed without a breach; telemetry time in ms.
    HoldPassed(i64),
    /// Verification failed: the action did not help, or an improvement cannot be attributed to it.
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
    },
}

impl Event {
    /// Returns what happened, for messages.
    const fn description(&self) -> &'static str {
        match self {
            Self::InvestigationStarted => "the start of the investigation",
            Self::Proposed { .. } => "a proposed plan",
            Self::NoPlan { .. } => "an investigation without a plan",
            Self::Approved(_) => "an approval",
            Self::Rejected { .. } => "a rejection",
            Self::Expired => "the expiry of the plan",
            Self::Executed { .. } => "an execution",
            Self::Mitigated(_) => "a mitigation",
            Self::HoldPassed(_) => "the end of the hold",
            Self::VerificationFailed { .. } => "a failed verification",
            Self::Noise(_) => "the verdict noise",
            Self::Closed { .. } => "closing",
        }
    }
}

/// A change of an incident's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Previous state.
    pub from: IncidentState,
    /// New state.
    pub to: IncidentState,
    /// Note for the history, one line.
    pub note: String,
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
const FORMAT_VERSION: u8 = 1;

impl Workflow {
    /// Parses a persisted workflow of this or an older format version.
    ///
    /// # Errors
    /// See [`WorkflowReadError`].
    pub fn read(text: &str) -> Result<Self, WorkflowReadError> {
        let document: serde_json::Value = serde_json::from_str(text)?;
        match document["version"].as_u64() {
            Some(version) if version > u64::from(FORMAT_VERSION) => Err(WorkflowReadError::Newer(version)),
            _ => Ok(serde_json::from_value(document)?),
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
            approval: None,
            undo_secret: None,
            execution: None,
            undo: None,
            outcome: None,
            verdict: None,
            opened_ms,
            executed_ms: None,
            mitigated_ms: None,
            settled_ms: None,
        }
    }

    /// Returns the next effect. `now` is the wall clock (for expiry), `watermark_ms` is telemetry time.
    pub fn next(&self, now: Timestamp, watermark_ms: i64, config: &Config) -> Effect {
        let is_settle_time_over = watermark_ms >= self.opened_ms + (config.settle_seconds * 1000.0) as i64;
        match self.state {
            IncidentState::Open => Effect::StartInvestigation,
            IncidentState::Investigating if is_settle_time_over => Effect::Investigate,
            IncidentState::AwaitingApproval if self.plan.as_ref().is_some_and(|plan| plan.expires_at <= now) => {
                Effect::Expire
            }
            IncidentState::AwaitingApproval => Effect::AwaitApproval,
            IncidentState::Mitigating => Effect::Execute,
            IncidentState::Verifying | IncidentState::Mitigated => Effect::Verify,
            IncidentState::Investigating
            | IncidentState::Resolved
            | IncidentState::Suppressed
            | IncidentState::Escalated
            | IncidentState::Closed => Effect::Wait,
        }
    }

    /// Applies an event and returns the state change.
    ///
    /// # Errors
    /// Returns an error if the event is not valid in the current state; the workflow is unchanged then.
    pub fn apply(&mut self, event: Event) -> Result<StateChange, WorkflowError> {
        let from = self.state;
        let (to, note) = destination(from, &event)
            .filter(|(to, _)| from.can_transition_to(*to))
            .ok_or_else(|| WorkflowError { state: from, event: event.description() })?;
        match event {
            Event::InvestigationStarted | Event::Closed { .. } => {}
            Event::Proposed { diagnosis, plan, watched } => {
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
            Event::Executed { outcome, at_ms, watched, .. } => {
                self.execution = Some(outcome);
                self.executed_ms = Some(at_ms);
                for signal in watched {
                    if !self.watched.iter().any(|known| known.signal == signal.signal) {
                        self.watched.push(signal);
                    }
                }
                if to == IncidentState::Escalated {
                    self.outcome = Some("escalated".into());
                }
            }
            Event::Mitigated(at_ms) => self.mitigated_ms = Some(at_ms),
            Event::HoldPassed(at_ms) => {
                self.settled_ms = Some(at_ms);
                self.outcome = Some("resolved".into());
            }
            Event::VerificationFailed { undo, .. } => {
                self.undo = undo;
                self.outcome = Some("inconclusive".into());
            }
            Event::Noise(at_ms) => {
                self.settled_ms = Some(at_ms);
                self.outcome = Some("noise".into());
            }
        }
        self.state = to;
        Ok(StateChange { from, to, note })
    }
}

/// Returns the state that an event leads to, and the note for the history.
fn destination(from: IncidentState, event: &Event) -> Option<(IncidentState, String)> {
    use IncidentState as S;
    // Each event is valid in these states only, whatever transitions the table allows.
    let found = match (from, event) {
        (S::Open, Event::InvestigationStarted) => (S::Investigating, "gathering evidence".to_owned()),
        (S::Investigating, Event::Proposed { plan, .. }) => {
            let call = &plan.call;
            (S::AwaitingApproval, format!("proposed {} {} of {}", call.tool, call.operation, call.target))
        }
        (S::Investigating, Event::NoPlan { reason, .. }) => (S::Escalated, reason.clone()),
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
        (S::Verifying, Event::Mitigated(_)) => (S::Mitigated, "every watched signal is good again".to_owned()),
        (S::Mitigated, Event::HoldPassed(_)) => (S::Resolved, "no breach within the hold".to_owned()),
        (S::Verifying | S::Mitigated, Event::VerificationFailed { undo, reason, .. }) => {
            let undone = undo.map_or_else(|| "nothing to undo".to_owned(), |undo| format!("undo {}", undo.as_str()));
            (S::Escalated, format!("inconclusive: {reason}; {undone}"))
        }
        (S::Escalated | S::AwaitingApproval, Event::Noise(_)) => {
            (S::Suppressed, "marked as noise by a person".to_owned())
        }
        (S::Escalated, Event::Closed { by, reason }) => (S::Closed, decided("closed", by, reason)),
        _ => return None,
    };
    Some(found)
}

/// The note of a person's decision.
fn decided(decision: &str, by: &Principal, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{decision} by {by}{reason}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{DryRun, Severity, TenantId, ToolCall};

    use super::*;

    fn workflow() -> Workflow {
        let at = Timestamp::from_millis(1000);
        Workflow::new(Incident {
            key: "k".into(),
            tenant: TenantId::main(),
            title: "t".into(),
            severity: Severity::High,
            services: vec!["a".into()],
            trigger: "sustained_breach".into(),
            began_at: at,
            opened_at: at,
        })
    }

    fn diagnosis() -> Diagnosis {
        Diagnosis { causes: vec![], evidence: vec![], severity: Severity::High, impact: String::new() }
    }

    fn plan() -> Plan {
        Plan {
            version: 1,
            tenant: TenantId::main(),
            incident: "k".into(),
            call: ToolCall {
                tool: "process".into(),
                operation: "restart".into(),
                target: "a".into(),
                arguments: Default::default(),
            },
            dry_run: DryRun {
                diff: String::new(),
                blast_radius: String::new(),
                risk: "low".into(),
                reversible: false,
                precondition: "1".into(),
                undo: None,
            },
            runbook: "r".into(),
            control: "none".into(),
            expires_at: Timestamp::from_millis(5000),
        }
    }

    fn approval() -> Approval {
        Approval {
            principal: Principal::wardroom(),
            at: Timestamp::from_millis(1),
            channel: "http".into(),
            plan_sha256: String::new(),
            reason: String::new(),
        }
    }

    fn event(pick: u8) -> Event {
        let executed = |outcome| Event::Executed { outcome, detail: String::new(), at_ms: 7, watched: vec![] };
        match pick {
            0 => Event::InvestigationStarted,
            1 => Event::Proposed { diagnosis: diagnosis(), plan: Box::new(plan()), watched: vec![] },
            2 => Event::NoPlan { diagnosis: diagnosis(), reason: "x".into() },
            3 => Event::Approved(approval()),
            4 => Event::Rejected { by: Principal::wardroom(), reason: "x".into() },
            5 => Event::Expired,
            6 => executed(Outcome::Applied),
            7 => executed(Outcome::Unknown),
            8 => Event::Mitigated(8),
            9 => Event::HoldPassed(9),
            10 => Event::VerificationFailed { undo: None, reason: "x".into(), at_ms: 9 },
            11 => Event::Noise(9),
            _ => Event::Closed { by: Principal::wardroom(), reason: String::new() },
        }
    }

    proptest! {
        /// Random events in random order cause only transitions of the table, and no execution without an approval.
        #[test]
        fn allows_only_table_transitions_and_approved_executions(picks in prop::collection::vec(0_u8..13, 0..40)) {
            let mut workflow = workflow();
            for pick in picks {
                let before = workflow.clone();
                match workflow.apply(event(pick)) {
                    Ok(change) => prop_assert!(change.from == before.state && change.from.can_transition_to(change.to)),
                    Err(_) => prop_assert_eq!(&workflow, &before),
                }
                prop_assert!(workflow.execution.is_none() || workflow.approval.is_some());
                let restored: Workflow = serde_json::from_str(&serde_json::to_string(&workflow).unwrap()).unwrap();
                prop_assert_eq!(restored, workflow.clone());
            }
        }
    }

    /// Workflows of every released format version stay readable.
    #[test]
    fn version_1_stays_readable() {
        let text = include_str!("../tests/formats/workflow-v1.json");
        let workflow = Workflow::read(text).unwrap();
        assert_eq!((workflow.state, workflow.outcome.as_deref()), (IncidentState::Resolved, Some("resolved")));
        assert_eq!(workflow.plan.as_ref().unwrap().sha256().ok(), workflow.plan_sha256);
        assert_eq!(serde_json::to_value(&workflow).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        let newer = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(Workflow::read(&newer).unwrap_err().to_string().contains("newer Wardroom"));
        assert!(matches!(Workflow::read("{"), Err(WorkflowReadError::Damaged(_))));
    }

    #[test]
    fn returns_an_effect_for_every_unsettled_state() {
        let mut workflow = workflow();
        let now = Timestamp::from_millis(2000);
        let next_effect = |workflow: &Workflow, watermark| workflow.next(now, watermark, &Config::default());
        assert_eq!(next_effect(&workflow, 1000), Effect::StartInvestigation);
        workflow.apply(event(0)).unwrap();
        assert_eq!(next_effect(&workflow, 1000), Effect::Wait, "evidence is still arriving");
        assert_eq!(next_effect(&workflow, 3000), Effect::Investigate);
        workflow.apply(event(1)).unwrap();
        assert_eq!(next_effect(&workflow, 3000), Effect::AwaitApproval);
        assert_eq!(workflow.next(Timestamp::from_millis(6000), 3000, &Config::default()), Effect::Expire);
        workflow.apply(event(3)).unwrap();
        assert_eq!(next_effect(&workflow, 3000), Effect::Execute);
        workflow.apply(event(6)).unwrap();
        assert_eq!(next_effect(&workflow, 3000), Effect::Verify);
        workflow.apply(event(8)).unwrap();
        assert_eq!(next_effect(&workflow, 3000), Effect::Verify);
        workflow.apply(event(9)).unwrap();
        assert_eq!(next_effect(&workflow, 3000), Effect::Wait);
    }
}
