//! What happens to an incident, and the state that it leads to.

use wardroom_domain::{Approval, Diagnosis, IncidentState, Outcome, Plan, Principal, Timestamp};

use crate::WatchedSignal;

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
    /// A person reopened an incident that had ended.
    Reopened {
        /// The person.
        by: Principal,
        /// Their reason; may be empty.
        reason: String,
        /// Telemetry time, in ms.
        at_ms: i64,
        /// Wall time.
        at: Timestamp,
    },
}

impl Event {
    /// Returns what happened, for messages.
    pub(crate) const fn description(&self) -> &'static str {
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
            Self::Reopened { .. } => "reopening",
        }
    }
}

/// Returns the state that an event leads to, and the note for the history.
pub(crate) fn destination(from: IncidentState, event: &Event) -> Option<(IncidentState, String)> {
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
        (S::Resolved | S::Suppressed | S::Closed, Event::Reopened { by, reason, .. }) => {
            (S::Investigating, decided("reopened", by, reason))
        }
        _ => return None,
    };
    Some(found)
}

/// The note of a person's decision.
fn decided(decision: &str, by: &Principal, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{decision} by {by}{reason}")
}
