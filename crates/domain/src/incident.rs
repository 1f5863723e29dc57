//! An incident and the one table of its transitions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::sha256_hex;
use crate::identity::TenantId;
use crate::severity::Severity;
use crate::time::Timestamp;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Something is wrong; nobody looked yet.
    Open,
    /// Evidence is being gathered and ranked.
    Investigating,
    /// A plan waits for a person.
    AwaitingApproval,
    /// An approved plan is being carried out.
    Mitigating,
    /// The plan was carried out; whether it helped is being measured.
    Verifying,
    /// Twenty good samples; the hold runs.
    Mitigated,
    /// It stayed good for the whole hold.
    Resolved,
    /// A person said this was noise.
    Suppressed,
    /// Wardroom cannot or may not go on; a person must.
    Escalated,
    /// Done with, by a person's word.
    Closed,
}

use IncidentState::{
    AwaitingApproval, Closed, Escalated, Investigating, Mitigated, Mitigating, Open, Resolved, Suppressed, Verifying,
};

/// Every transition there is. Code, database check, crash tests and documentation all read this.
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
    /// Every state, in the order of a good ending.
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

    /// The word, as it stands in JSON and tables.
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

    /// The state a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the table allows going from here to `next`.
    pub fn may_become(self, next: Self) -> bool {
        TRANSITIONS.contains(&(self, next))
    }

    /// Whether the workflow has nothing left to do by itself.
    pub const fn is_settled(self) -> bool {
        matches!(self, Resolved | Suppressed | Escalated | Closed)
    }
}

impl std::fmt::Display for IncidentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What opened an incident, before it has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Derived from what opened it, so that a replay opens the same one.
    pub key: String,
    /// Whose.
    pub tenant: TenantId,
    /// One line for a person.
    pub title: String,
    /// The worst of what was seen.
    pub severity: Severity,
    /// Services known to be affected, the first one first.
    pub services: Vec<String>,
    /// Why it opened: `sustained_breach` or `deployment_correlation` (seed 002's trigger).
    pub trigger: String,
    /// When trouble began, by the telemetry's own time.
    pub began_at: Timestamp,
    /// When it was opened, by the telemetry's own time.
    pub opened_at: Timestamp,
}

/// The key of an incident: the first 16 hex digits of SHA-256 over tenant, signal and its onset.
pub fn incident_key(tenant: &TenantId, signal: &str, began_at: Timestamp) -> String {
    let mut key = sha256_hex(format!("{tenant}\n{signal}\n{}", began_at.millis()).as_bytes());
    key.truncate(16);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_reached_and_settled_ones_need_a_person() {
        for state in IncidentState::ALL {
            assert_eq!(IncidentState::parse(state.as_str()), Some(state));
            assert!(state == Open || TRANSITIONS.iter().any(|(_, to)| *to == state), "{state} is unreachable");
        }
        assert!(!Resolved.may_become(Open));
        assert!(Verifying.may_become(Mitigated));
    }
}
