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
//! its outgoing calls do not. The number of open incidents and of the services of one is limited: further breaches are
//! reported as anomalies, and open an incident once others are settled.

#![forbid(unsafe_code)]

mod call_graph;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};
use wardroom_domain::incident::incident_key;
use wardroom_domain::{Incident, Severity, TenantId, Timestamp};

pub use call_graph::{CallGraph, ConnectedServices};

/// An incident without a breach for this long is forgotten, in ms. A restart restores incidents of this age.
const RETENTION_MS: i64 = 24 * 3_600_000;

/// Settings of correlation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// A connected breach joins an open incident until this long after the incident's last breach, in minutes.
    /// Default 5. Since 0.1.
    pub quiet_minutes: u64,
    /// A deployment at most this long before the onset is recent, in minutes. Default 30. Since 0.1.
    pub deployment_minutes: u64,
    /// Maximum number of incidents of a tenant that breaches may join; further ones open when others are settled or
    /// quiet. Default 200. Since 0.1.
    pub max_open_incidents: usize,
    /// Maximum number of services of an incident; breaches of further ones belong to it, but are not listed. Default
    /// 200. Since 0.1.
    pub max_services_per_incident: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { quiet_minutes: 5, deployment_minutes: 30, max_open_incidents: 200, max_services_per_incident: 200 }
    }
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("correlate.quiet-minutes", self.quiet_minutes, 1..=MAX_MINUTES);
        problems.range("correlate.deployment-minutes", self.deployment_minutes, 0..=MAX_MINUTES);
        problems.count("correlate.max-open-incidents", self.max_open_incidents);
        problems.count("correlate.max-services-per-incident", self.max_services_per_incident);
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
    /// Version of the call graph that the components of the incidents are from.
    graph_version: Option<u64>,
    limited: LimitedBreaches,
}

/// Number of breaches that a limit kept from changing an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitedBreaches {
    /// An incident was not opened.
    pub not_opened: u64,
    /// A service did not join an incident.
    pub not_joined: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenIncident {
    services: BTreeSet<String>,
    last_ms: i64,
    /// Set when the incident is settled: breaches that begin later do not belong to it.
    released_ms: Option<i64>,
    /// Components of the services in the call graph.
    #[serde(skip)]
    components: BTreeSet<u32>,
}

impl OpenIncident {
    fn new(services: BTreeSet<String>, last_ms: i64, released_ms: Option<i64>) -> Self {
        Self { services, last_ms, released_ms, components: BTreeSet::new() }
    }

    fn update_components(&mut self, graph: &CallGraph) {
        self.components = self.services.iter().filter_map(|service| graph.component(service)).collect();
    }

    fn is_connected(&self, service: &str, component: Option<u32>) -> bool {
        component.map_or_else(|| self.services.contains(service), |component| self.components.contains(&component))
    }

    /// Returns whether breaches at this time may still join.
    fn is_open(&self, at_ms: i64, quiet_ms: i64) -> bool {
        self.released_ms.is_none() && at_ms <= self.last_ms.saturating_add(quiet_ms)
    }
}

impl Correlator {
    /// Creates a correlator without incidents.
    pub fn new(config: Config, tenant: TenantId) -> Self {
        Self { config, tenant, incidents: BTreeMap::new(), graph_version: None, limited: LimitedBreaches::default() }
    }

    /// Returns the state to persist, for [`Correlator::load`].
    pub fn save(&self) -> impl Serialize + '_ {
        &self.incidents
    }

    /// Creates a correlator from saved state.
    pub fn load(config: Config, tenant: TenantId, saved: SavedCorrelator) -> Self {
        Self { incidents: saved.0, ..Self::new(config, tenant) }
    }

    /// Restores an incident after a restart.
    pub fn restore(&mut self, key: &str, services: &[String], opened_ms: i64, released_ms: Option<i64>) {
        let services = services.iter().cloned().collect();
        let incident = OpenIncident::new(services, released_ms.unwrap_or(opened_ms), released_ms);
        self.incidents.insert(key.to_owned(), incident);
        self.graph_version = None;
    }

    /// Marks an incident as settled: breaches that begin after `at_ms` do not belong to it.
    pub fn release(&mut self, key: &str, at_ms: i64) {
        if let Some(incident) = self.incidents.get_mut(key) {
            incident.released_ms = Some(at_ms);
        }
    }

    /// Returns and resets the number of breaches that a limit kept from changing an incident.
    pub fn take_limited(&mut self) -> LimitedBreaches {
        std::mem::take(&mut self.limited)
    }

    /// Processes a breach; returns the decision, or `None` if nothing changes.
    pub fn observe(&mut self, event: &BreachEvent, graph: &CallGraph) -> Option<Decision> {
        let quiet_ms = self.config.quiet_minutes as i64 * 60_000;
        if self.graph_version != Some(graph.version()) {
            self.incidents.values_mut().for_each(|incident| incident.update_components(graph));
            self.graph_version = Some(graph.version());
        }
        let component = graph.component(&event.service);
        let matching = self.incidents.iter_mut().find(|(_, incident)| {
            let is_in_time = match incident.released_ms {
                Some(released_ms) => event.since_ms <= released_ms,
                None => event.at_ms <= incident.last_ms.saturating_add(quiet_ms),
            };
            is_in_time && incident.is_connected(&event.service, component)
        });
        if let Some((key, incident)) = matching {
            incident.last_ms = incident.last_ms.max(event.at_ms);
            if incident.released_ms.is_some() || incident.services.contains(&event.service) {
                return None;
            }
            if incident.services.len() >= self.config.max_services_per_incident {
                self.limited.not_joined += 1;
                return None;
            }
            incident.services.insert(event.service.clone());
            incident.components.extend(component);
            return Some(Decision::Joined { key: key.clone(), service: event.service.clone() });
        }
        let open = self.incidents.values().filter(|incident| incident.is_open(event.at_ms, quiet_ms)).count();
        if open >= self.config.max_open_incidents {
            self.limited.not_opened += 1;
            return None;
        }
        Some(self.open(event, component))
    }

    /// Opens an incident, and forgets old ones.
    fn open(&mut self, event: &BreachEvent, component: Option<u32>) -> Decision {
        self.incidents.retain(|_, incident| {
            let last_ms = incident.last_ms.max(incident.released_ms.unwrap_or(i64::MIN));
            last_ms.saturating_add(RETENTION_MS) >= event.at_ms
        });
        let began_at = Timestamp::from_millis(event.since_ms);
        let key = incident_key(&self.tenant, &event.signal, began_at);
        let mut incident = OpenIncident::new([event.service.clone()].into(), event.at_ms, None);
        incident.components.extend(component);
        self.incidents.insert(key.clone(), incident);
        let deployment_trigger = event.errors && event.deployed;
        Decision::Opened(Incident {
            key,
            tenant: self.tenant.clone(),
            title: format!("{}: {}", event.service, event.summary),
            severity: event.severity,
            services: vec![event.service.clone()],
            trigger: if deployment_trigger { "deployment_correlation" } else { "sustained_breach" }.to_owned(),
            began_at,
            opened_at: Timestamp::from_millis(event.at_ms),
        })
    }
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

    fn topology() -> CallGraph {
        CallGraph::new(1, [("front", "back"), ("back", "base")])
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

    #[test]
    fn services_of_one_outage_join_although_the_graph_changes_meanwhile() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        let opened = correlator.observe(&event("front", 0, 5000), &CallGraph::default());
        assert!(matches!(opened, Some(Decision::Opened(_))));
        let joined = correlator.observe(&event("base", 1000, 6000), &topology());
        assert!(matches!(joined, Some(Decision::Joined { .. })), "connected from now on");
        correlator.restore("k", &["other".to_owned()], 0, None);
        let graph = CallGraph::new(1, [("front", "back"), ("back", "base"), ("other", "peer")]);
        let joined = correlator.observe(&event("peer", 1000, 6000), &graph);
        assert!(matches!(joined, Some(Decision::Joined { key, .. }) if key == "k"), "a restored incident");
    }

    #[test]
    fn incidents_beyond_the_limit_open_once_others_are_settled() {
        let config = Config { max_open_incidents: 3, ..Config::default() };
        let mut correlator = Correlator::new(config, TenantId::main());
        let graph = CallGraph::default();
        let observe = |correlator: &mut Correlator, service: &str, at_ms: i64| {
            correlator.observe(&event(service, at_ms - 5000, at_ms), &graph)
        };
        let key = match observe(&mut correlator, "a", 10_000) {
            Some(Decision::Opened(incident)) => incident.key,
            other => panic!("{other:?}"),
        };
        assert!(observe(&mut correlator, "b", 10_000).is_some() && observe(&mut correlator, "c", 10_000).is_some());
        assert_eq!(observe(&mut correlator, "d", 11_000), None);
        assert_eq!(correlator.take_limited(), LimitedBreaches { not_opened: 1, not_joined: 0 });
        correlator.release(&key, 12_000);
        assert!(matches!(observe(&mut correlator, "d", 13_000), Some(Decision::Opened(_))));
        assert_eq!(observe(&mut correlator, "e", 13_000), None);
        let quiet = observe(&mut correlator, "e", 13_000 + 6 * 60_000);
        assert!(matches!(quiet, Some(Decision::Opened(_))), "the others are quiet");
    }

    #[test]
    fn the_services_of_an_incident_are_limited_and_further_breaches_still_belong_to_it() {
        let config = Config { max_services_per_incident: 2, ..Config::default() };
        let mut correlator = Correlator::new(config, TenantId::main());
        assert!(correlator.observe(&event("front", 0, 5000), &topology()).is_some());
        assert!(correlator.observe(&event("back", 0, 5000), &topology()).is_some());
        assert_eq!(correlator.observe(&event("base", 0, 6000), &topology()), None, "neither joined nor opened");
        assert_eq!(correlator.take_limited(), LimitedBreaches { not_opened: 0, not_joined: 1 });
        assert_eq!(correlator.incidents.len(), 1);
    }

    #[test]
    fn incidents_are_forgotten_after_a_day() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        for day in 0..30 {
            let at_ms = day * RETENTION_MS + day * 1000;
            assert!(correlator.observe(&event("front", at_ms - 5000, at_ms), &topology()).is_some());
        }
        assert!(correlator.incidents.len() <= 2, "{}", correlator.incidents.len());
    }

    /// Limit for steps that took minutes when they followed the calls for each breach; far above a second, because
    /// tests run without optimisation on busy machines.
    const MAX_STEP_SECONDS: u64 = 20;

    /// The worst case of the limits: as many incidents as may be open, and a breach of every service of a tenant.
    #[test]
    fn many_breaches_beside_the_limit_of_incidents_take_little_time() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        let names: Vec<String> = (0..10_000).map(|index| format!("service-{index}")).collect();
        let pairs = names.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str()));
        let graph = CallGraph::new(1, pairs);
        let events: Vec<BreachEvent> = names.iter().map(|name| event(name, 0, 5000)).collect();
        let started = std::time::Instant::now();
        events.iter().for_each(|event| drop(correlator.observe(event, &graph)));
        assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
        assert_eq!(correlator.incidents.len(), 200);
    }
}
