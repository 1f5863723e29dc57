//! An incident and its state transition table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::sha256_hex;
use crate::entity::Entity;
use crate::identity::{Principal, TenantId};
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
    /// Every watched signal is good again; the hold time is running.
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
    (AwaitingApproval, Investigating),
    (AwaitingApproval, Mitigating),
    (AwaitingApproval, Escalated),
    (AwaitingApproval, Suppressed),
    (Mitigating, Verifying),
    (Mitigating, Escalated),
    (Verifying, Mitigated),
    (Verifying, Escalated),
    (Mitigated, Resolved),
    (Mitigated, Escalated),
    (Escalated, AwaitingApproval),
    (Escalated, Closed),
    (Escalated, Suppressed),
    (Resolved, Investigating),
    (Suppressed, Investigating),
    (Closed, Investigating),
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

/// Maximum number of changes in [`Incident::history`]; the oldest are dropped.
pub const MAX_INCIDENT_CHANGES: usize = 200;

/// An incident as opened by correlation, before it has a number.
///
/// Fields that builds before 0.2 did not write have defaults and are left out of the JSON while they have them.
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
    /// Names of the affected entities, in the order they became known.
    pub services: Vec<String>,
    /// Affected entities, in the order they became known; empty for incidents of builds that knew names only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
    /// What opened it: `sustained_breach`, `deployment_correlation`, [`Incident::BY_PERSON`] or [`Incident::BY_SPLIT`].
    pub trigger: String,
    /// Onset, by the telemetry's clock.
    pub began_at: Timestamp,
    /// Time of opening, by the telemetry's clock.
    pub opened_at: Timestamp,
    /// Interval between the points of the signal that opened it, in ms; 0 if unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval_ms: i64,
    /// Who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Principal>,
    /// Who acknowledged it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
    /// Comments of people, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<Comment>,
    /// Key of the incident that this one was merged into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<String>,
    /// Key of the incident that this one was split from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_from: Option<String>,
    /// Until when messages about it are suppressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_until: Option<Timestamp>,
    /// Changes of title, severity, entities and cause, oldest first; at most [`MAX_INCIDENT_CHANGES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<IncidentChange>,
}

impl Default for Incident {
    fn default() -> Self {
        let at = Timestamp::from_millis(0);
        Self {
            key: String::new(),
            tenant: TenantId::main(),
            title: String::new(),
            severity: Severity::Info,
            services: Vec::new(),
            entities: Vec::new(),
            trigger: String::new(),
            began_at: at,
            opened_at: at,
            interval_ms: 0,
            owner: None,
            acknowledged: None,
            comments: Vec::new(),
            merged_into: None,
            split_from: None,
            suppressed_until: None,
            history: Vec::new(),
        }
    }
}

impl Incident {
    /// [`Incident::trigger`] of an incident that a person has opened.
    pub const BY_PERSON: &str = "person";
    /// [`Incident::trigger`] of an incident that a person has split from another one.
    pub const BY_SPLIT: &str = "split";

    /// Returns the affected entities; for an incident of a build that knew names only, services with these names.
    pub fn affected(&self) -> Vec<Entity> {
        if self.entities.is_empty() {
            return self.services.iter().map(Entity::service).collect();
        }
        self.entities.clone()
    }

    /// Adds an affected entity. Returns false if it is known.
    pub fn add_entity(&mut self, entity: &Entity) -> bool {
        if self.entities.is_empty() {
            self.entities = self.affected();
        }
        if self.entities.contains(entity) {
            return false;
        }
        self.entities.push(entity.clone());
        if !self.services.contains(&entity.name) {
            self.services.push(entity.name.clone());
        }
        true
    }

    /// Removes affected entities.
    pub fn remove_entities(&mut self, removed: &[Entity]) {
        self.entities = self.affected();
        self.entities.retain(|entity| !removed.contains(entity));
        let is_left = |name: &String| self.entities.iter().any(|entity| entity.name == *name);
        self.services.retain(is_left);
    }

    /// Returns whether a person has made it, instead of a finding.
    pub fn is_made_by_person(&self) -> bool {
        [Self::BY_PERSON, Self::BY_SPLIT].contains(&self.trigger.as_str())
    }

    /// Appends to the history; the oldest changes are dropped beyond [`MAX_INCIDENT_CHANGES`].
    pub fn record(&mut self, at: Timestamp, text: impl Into<String>) {
        self.history.push(IncidentChange { at, text: text.into() });
        let excess = self.history.len().saturating_sub(MAX_INCIDENT_CHANGES);
        self.history.drain(..excess);
    }
}

/// Skips a field of builds that did not know it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// That a person has seen an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The person.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
}

/// A comment on an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comment {
    /// The person.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
    /// What they wrote. Untrusted text.
    pub text: String,
}

/// One change of an incident that is no transition of its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentChange {
    /// When it was recorded, by the wall clock.
    pub at: Timestamp,
    /// One line; may quote telemetry.
    pub text: String,
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
    fn every_state_is_reachable_and_what_has_ended_is_only_investigated_again() {
        for state in IncidentState::ALL {
            assert_eq!(IncidentState::parse(state.as_str()), Some(state));
            assert!(state == Open || TRANSITIONS.iter().any(|(_, to)| *to == state), "{state} is unreachable");
        }
        for ended in [Resolved, Suppressed, Closed] {
            let after = IncidentState::ALL.into_iter().filter(|next| ended.can_transition_to(*next));
            assert_eq!(after.collect::<Vec<_>>(), [Investigating], "{ended}");
        }
        assert!(Verifying.can_transition_to(Mitigated));
    }

    /// Incidents of builds that knew names of services only.
    #[test]
    fn an_incident_without_entities_is_read_and_grows() {
        let text = r#"{"key":"k","tenant":"main","title":"web: errors","severity":"high","services":["web","cart"],
            "trigger":"sustained_breach","began_at":"2026-11-21T14:50:00Z","opened_at":"2026-11-21T14:50:04Z"}"#;
        let mut incident: Incident = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&incident).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(incident.affected(), ["web", "cart"].map(Entity::service));
        assert!(!incident.add_entity(&Entity::service("web")));
        let database = Entity::named(crate::EntityKind::Database, "orders-db");
        assert!(incident.add_entity(&database) && !incident.add_entity(&database));
        assert_eq!(incident.services, ["web", "cart", "orders-db"]);
        assert_eq!(incident.entities.len(), 3);
        let mut rest = incident.clone();
        rest.remove_entities(&[Entity::service("web"), database.clone()]);
        assert_eq!(
            (rest.affected(), rest.services.as_slice()),
            (vec![Entity::service("cart")], ["cart".to_owned()].as_slice())
        );
        for change in 0..MAX_INCIDENT_CHANGES + 5 {
            incident.record(Timestamp::from_millis(0), change.to_string());
        }
        assert_eq!((incident.history.len(), incident.history[0].text.as_str()), (MAX_INCIDENT_CHANGES, "5"));
    }
}
