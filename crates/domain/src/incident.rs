//! An incident and its state transition table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::sha256_hex;
use crate::identity::TenantId;
use crate::severity::Severity;
use crate::time::Timestamp;

/// The state of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Opened; the investigation has not started.
    Open,
    /// Evidence is being collected and ranked.
    Investigating,
    /// A plan is waiting for approval.
    AwaitingApproval,
    /// An approved plan is being executed.
    Mitigating,
    /// The plan was executed; its effect is being measured.
    Verifying,
    /// Twenty good samples; the hold time is running.
    Mitigated,
    /// All signals stayed good for the whole hold time.
    Resolved,
    /// A person marked the incident as noise.
    Suppressed,
    /// Wardroom cannot or may not continue; a person must act.
    Escalated,
    /// Closed by a person.
    Closed,
}

use IncidentState::{
    AwaitingApproval, Closed, Escalated, Investigating, Mitigated, Mitigating, Open, Resolved, Suppressed, Verifying,
};

/// All transitions. Used by the code, the crash tests and the documentation.
pub const TRANSITIONS: &[(IncidentState, IncidentState)] = &[
    (Open, Investigating),
    (Investigating, AwaitingApproval),
    (Investigating, Escalated),
    (AwaitingApproval, Mitigating),
    (AwaitingApproval, Escalated),
    (AwaitingApproval, Suppressed),
    (Mitigating, Verifying),
    (Mitigating, Escalated),
    (Verifying, Mitigated),
    (Verifying, Escalated),
    (Mitigated, Resolved),
    (Mitigated, Escalated),
    (Escalated, Closed),
    (Escalated, Suppressed),
];

impl IncidentState {
    /// All states.
    pub const ALL: [Self; 10] = [
        Open,
        Investigating,
        AwaitingApproval,
        Mitigating,
        Verifying,
        Mitigated,
        Resolved,
        Suppressed,
        Escalated,
        Closed,
    ];

    /// Returns the spelling in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Open => "open",
            Investigating => "investigating",
            AwaitingApproval => "awaiting_approval",
            Mitigating => "mitigating",
            Verifying => "verifying",
            Mitigated => "mitigated",
            Resolved => "resolved",
            Suppressed => "suppressed",
            Escalated => "escalated",
            Closed => "closed",
        }
    }

    /// Parses a state.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns whether the table allows the transition to `next`.
    pub fn can_transition_to(self, next: Self) -> bool {
        TRANSITIONS.contains(&(self, next))
    }

    /// Returns whether the workflow has no automatic step left.
    pub const fn is_settled(self) -> bool {
        matches!(self, Resolved | Suppressed | Escalated | Closed)
    }
}

impl std::fmt::Display for IncidentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An incident as opened by correlation, before it has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Key derived from the tenant, the signal and its onset, so that a replay opens the same incident.
    pub key: String,
    /// The tenant.
    pub tenant: TenantId,
    /// One-line title.
    pub title: String,
    /// Highest severity seen.
    pub severity: Severity,
    /// Affected services, in the order they became known.
    pub services: Vec<String>,
    /// What opened it: `sustained_breach` or `deployment_correlation`.
    pub trigger: String,
    /// Onset, by the telemetry's clock.
    pub began_at: Timestamp,
    /// Time of opening, by the telemetry's clock.
    pub opened_at: Timestamp,
}

/// Returns the key of an incident: the first 16 hex digits of SHA-256 over tenant, signal and its onset.
pub fn incident_key(tenant: &TenantId, signal: &str, began_at: Timestamp) -> String {
    let mut key = sha256_hex(format!("{tenant}\n{signal}\n{}", began_at.millis()).as_bytes());
    key.truncate(16);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reachable_and_resolved_incidents_do_not_reopen() {
        for state in IncidentState::ALL {
            assert_eq!(IncidentState::parse(state.as_str()), Some(state));
            assert!(state == Open || TRANSITIONS.iter().any(|(_, to)| *to == state), "{state} is unreachable");
        }
        assert!(!Resolved.can_transition_to(Open));
        assert!(Verifying.can_transition_to(Mitigated));
    }
}
