//! Correlation: groups breaches of connected services into one incident.
//!
//! ```text
//! breach ──► connected to an open incident? ── yes ─► join it
//!                        │ no
//!                        └──► open one (key derived from signal and onset: a replay opens the same)
//! ```
//!
//! Two services are connected if they are the same or if the call graph has a path between them, in either
//! direction. Only signals of the requests a service handles, or of its resource limits, open an incident; signals of
//! its outgoing calls do not.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::incident::incident_key;
use wardroom_domain::{Incident, Severity, TenantId, Timestamp};

/// Settings of correlation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// A connected breach joins an open incident until this long after the incident's last breach, in minutes.
    /// Default 5. Since 0.1.
    pub quiet_minutes: u64,
    /// A deployment at most this long before the onset is recent, in minutes. Default 30. Since 0.1.
    pub deployment_minutes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { quiet_minutes: 5, deployment_minutes: 30 }
    }
}

/// A sustained breach of one signal, the input of correlation.
#[derive(Clone, Debug)]
pub struct BreachEvent {
    /// The service.
    pub service: String,
    /// Text form of the signal; part of the incident key.
    pub signal: String,
    /// Short description for the incident title: `errors`, `slow responses`, …
    pub summary: String,
    /// Time of the first bad point, in ms.
    pub since_ms: i64,
    /// Time of the newest bad point, in ms.
    pub at_ms: i64,
    /// Severity.
    pub severity: Severity,
    /// Whether requests fail.
    pub errors: bool,
    /// Whether the service was deployed recently. With `errors`, the trigger is `deployment_correlation`.
    pub deployed: bool,
}

/// The call graph: caller → callees.
pub type Topology = BTreeMap<String, BTreeSet<String>>;

/// The result of correlating a breach.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The breach opened a new incident.
    Opened(Incident),
    /// A service joined an open incident.
    Joined {
        /// Key of the incident.
        key: String,
        /// The service.
        service: String,
    },
}

/// Saved state of a correlator.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct SavedCorrelator(BTreeMap<String, OpenIncident>);

/// The open incidents of one tenant.
#[derive(Debug)]
pub struct Correlator {
    config: Config,
    tenant: TenantId,
    incidents: BTreeMap<String, OpenIncident>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenIncident {
    services: BTreeSet<String>,
    last_ms: i64,
    /// Set when the incident is settled: breaches that begin later do not belong to it.
    released_ms: Option<i64>,
}

impl Correlator {
    /// Creates a correlator without incidents.
    pub fn new(config: Config, tenant: TenantId) -> Self {
        Self { config, tenant, incidents: BTreeMap::new() }
    }

    /// Returns the state to persist, for [`Correlator::load`].
    pub fn save(&self) -> impl Serialize + '_ {
        &self.incidents
    }

    /// Creates a correlator from saved state.
    pub fn load(config: Config, tenant: TenantId, saved: SavedCorrelator) -> Self {
        Self { config, tenant, incidents: saved.0 }
    }

    /// Restores an incident after a restart.
    pub fn restore(&mut self, key: &str, services: &[String], opened_ms: i64, released_ms: Option<i64>) {
        let services = services.iter().cloned().collect();
        self.incidents
            .insert(key.to_owned(), OpenIncident { services, last_ms: released_ms.unwrap_or(opened_ms), released_ms });
    }

    /// Marks an incident as settled: breaches that begin after `at_ms` do not belong to it.
    pub fn release(&mut self, key: &str, at_ms: i64) {
        if let Some(incident) = self.incidents.get_mut(key) {
            incident.released_ms = Some(at_ms);
        }
    }

    /// Processes a breach; returns the decision, or `None` if nothing changes.
    pub fn observe(&mut self, event: &BreachEvent, topology: &Topology) -> Option<Decision> {
        let quiet_ms = self.config.quiet_minutes as i64 * 60_000;
        let connected_services = component(&event.service, topology);
        let matching = self.incidents.iter_mut().find(|(_, incident)| {
            let connected = incident.services.iter().any(|service| connected_services.contains(service));
            let is_in_time = match incident.released_ms {
                Some(released_ms) => event.since_ms <= released_ms,
                None => event.at_ms <= incident.last_ms + quiet_ms,
            };
            connected && is_in_time
        });
        if let Some((key, incident)) = matching {
            incident.last_ms = incident.last_ms.max(event.at_ms);
            let joined = incident.released_ms.is_none() && incident.services.insert(event.service.clone());
            return joined.then(|| Decision::Joined { key: key.clone(), service: event.service.clone() });
        }
        let began_at = Timestamp::from_millis(event.since_ms);
        let key = incident_key(&self.tenant, &event.signal, began_at);
        let incident =
            OpenIncident { services: [event.service.clone()].into(), last_ms: event.at_ms, released_ms: None };
        self.incidents.insert(key.clone(), incident);
        let deployment_trigger = event.errors && event.deployed;
        Some(Decision::Opened(Incident {
            key,
            tenant: self.tenant.clone(),
            title: format!("{}: {}", event.service, event.summary),
            severity: event.severity,
            services: vec![event.service.clone()],
            trigger: if deployment_trigger { "deployment_correlation" } else { "sustained_breach" }.to_owned(),
            began_at,
            opened_at: Timestamp::from_millis(event.at_ms),
        }))
    }
}

/// Returns all services with a path to or from a service, and the service itself.
pub fn component(service: &str, topology: &Topology) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = [service.to_owned()].into();
    let mut queue = vec![service.to_owned()];
    while let Some(next) = queue.pop() {
        for (caller, callees) in topology {
            if *caller == next {
                queue.extend(callees.iter().filter(|callee| found.insert((*callee).clone())).cloned());
            } else if callees.contains(&next) && found.insert(caller.clone()) {
                queue.push(caller.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(service: &str, since_ms: i64, at_ms: i64) -> BreachEvent {
        BreachEvent {
            service: service.into(),
            signal: format!("{service}/errors"),
            summary: "errors".into(),
            since_ms,
            at_ms,
            severity: Severity::High,
            errors: true,
            deployed: false,
        }
    }

    fn topology() -> Topology {
        [("front".into(), ["back".into()].into()), ("back".into(), ["base".into()].into())].into()
    }

    #[test]
    fn connected_breaches_join_one_incident() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        let topology = topology();
        assert!(matches!(correlator.observe(&event("front", 0, 5000), &topology), Some(Decision::Opened(_))));
        assert!(matches!(correlator.observe(&event("base", 1000, 6000), &topology), Some(Decision::Joined { .. })));
        assert_eq!(correlator.observe(&event("base", 1000, 7000), &topology), None);
        let unconnected = correlator.observe(&event("unrelated", 1000, 7000), &topology);
        assert!(matches!(unconnected, Some(Decision::Opened(_))));
    }

    #[test]
    fn the_same_breach_always_opens_the_same_incident() {
        let open = || Correlator::new(Config::default(), TenantId::main()).observe(&event("a", 7, 9), &topology());
        assert_eq!(open(), open());
    }

    #[test]
    fn after_release_only_a_later_breach_opens_another_incident() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        correlator.restore("k", &["front".to_owned()], 0, Some(100_000));
        assert_eq!(correlator.observe(&event("front", 99_000, 150_000), &topology()), None);
        assert!(correlator.observe(&event("front", 101_000, 150_000), &topology()).is_some());
    }
}
