//! Breaches and changes become incidents: one for what belongs together, however loud it gets.
//!
//! ```text
//! breach ──► connected to an open incident? ── yes ─► joins it
//!                        │ no
//!                        └──► opens one (key derived from signal and onset: a replay opens the same)
//! ```
//!
//! Connected means: the same service, or a path between the services in the call graph, in either
//! direction. Only what customers or limits feel opens an incident: a signal of what a service serves,
//! never one of its calls alone.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::incident::incident_key;
use wardroom_domain::{Incident, Severity, TenantId, Timestamp};

/// What of correlation can be configured.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// An incident takes in what is connected to it until this long after its last breach, in
    /// minutes. Default 5. Since 0.1.
    pub quiet_minutes: u64,
    /// A deployment this long before the onset counts as recent, in minutes (seed 002). Default 30. Since 0.1.
    pub deployment_minutes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { quiet_minutes: 5, deployment_minutes: 30 }
    }
}

/// One signal in sustained breach, as correlation needs it.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Of which service.
    pub service: String,
    /// The signal, as text: part of the incident's key.
    pub signal: String,
    /// In words for a title: `errors`, `slow responses`, …
    pub words: String,
    /// When it began, in ms.
    pub since_ms: i64,
    /// When it was seen, in ms.
    pub at_ms: i64,
    /// How bad.
    pub severity: Severity,
    /// Whether requests fail (half of seed 002's trigger).
    pub errors: bool,
    /// Whether the service was deployed within the configured minutes before (the other half).
    pub deployed: bool,
}

/// The call graph: caller → callees.
pub type Topology = BTreeMap<String, BTreeSet<String>>;

/// What correlation decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// A new incident.
    Opened(Incident),
    /// A service joined a known one.
    Joined {
        /// Which incident.
        key: String,
        /// Which service.
        service: String,
    },
}

/// What a correlator remembered.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Saved(BTreeMap<String, Known>);

/// The open incidents of one tenant.
#[derive(Debug)]
pub struct Correlator {
    config: Config,
    tenant: TenantId,
    known: BTreeMap<String, Known>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    services: BTreeSet<String>,
    last_ms: i64,
    /// Once settled: what is older belongs to it still, what is newer does not.
    released_ms: Option<i64>,
}

impl Correlator {
    /// Nothing open.
    pub fn new(config: Config, tenant: TenantId) -> Self {
        Self { config, tenant, known: BTreeMap::new() }
    }

    /// What it remembers, for [`Correlator::load`].
    pub fn save(&self) -> impl Serialize + '_ {
        &self.known
    }

    /// Goes on from what was saved.
    pub fn load(config: Config, tenant: TenantId, saved: Saved) -> Self {
        Self { config, tenant, known: saved.0 }
    }

    /// Takes an incident back in after a restart.
    pub fn restore(&mut self, key: &str, services: &[String], opened_ms: i64, released_ms: Option<i64>) {
        let services = services.iter().cloned().collect();
        self.known.insert(key.to_owned(), Known { services, last_ms: released_ms.unwrap_or(opened_ms), released_ms });
    }

    /// An incident is settled: what begins after `at_ms` is not part of it any more.
    pub fn release(&mut self, key: &str, at_ms: i64) {
        if let Some(known) = self.known.get_mut(key) {
            known.released_ms = Some(at_ms);
        }
    }

    /// Takes a breach in.
    pub fn observe(&mut self, trouble: &Trouble, topology: &Topology) -> Option<Decision> {
        let quiet_ms = self.config.quiet_minutes as i64 * 60_000;
        let near = component(&trouble.service, topology);
        let home = self.known.iter_mut().find(|(_, known)| {
            let connected = known.services.iter().any(|service| near.contains(service));
            let in_time = match known.released_ms {
                Some(released_ms) => trouble.since_ms <= released_ms,
                None => trouble.at_ms <= known.last_ms + quiet_ms,
            };
            connected && in_time
        });
        if let Some((key, known)) = home {
            known.last_ms = known.last_ms.max(trouble.at_ms);
            let joined = known.released_ms.is_none() && known.services.insert(trouble.service.clone());
            return joined.then(|| Decision::Joined { key: key.clone(), service: trouble.service.clone() });
        }
        let began_at = Timestamp::from_millis(trouble.since_ms);
        let key = incident_key(&self.tenant, &trouble.signal, began_at);
        let known = Known { services: [trouble.service.clone()].into(), last_ms: trouble.at_ms, released_ms: None };
        self.known.insert(key.clone(), known);
        let seed_trigger = trouble.errors && trouble.deployed;
        Some(Decision::Opened(Incident {
            key,
            tenant: self.tenant.clone(),
            title: format!("{}: {}", trouble.service, trouble.words),
            severity: trouble.severity,
            services: vec![trouble.service.clone()],
            trigger: if seed_trigger { "deployment_correlation" } else { "sustained_breach" }.to_owned(),
            began_at,
            opened_at: Timestamp::from_millis(trouble.at_ms),
        }))
    }
}

/// All services with a path to or from this one, itself included.
pub fn component(service: &str, topology: &Topology) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = [service.to_owned()].into();
    let mut waiting = vec![service.to_owned()];
    while let Some(next) = waiting.pop() {
        for (caller, callees) in topology {
            if *caller == next {
                waiting.extend(callees.iter().filter(|callee| found.insert((*callee).clone())).cloned());
            } else if callees.contains(&next) && found.insert(caller.clone()) {
                waiting.push(caller.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(service: &str, since_ms: i64, at_ms: i64) -> Trouble {
        Trouble {
            service: service.into(),
            signal: format!("{service}/errors"),
            words: "errors".into(),
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
    fn what_is_connected_becomes_one_incident() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        let topology = topology();
        assert!(matches!(correlator.observe(&trouble("front", 0, 5000), &topology), Some(Decision::Opened(_))));
        assert!(matches!(correlator.observe(&trouble("base", 1000, 6000), &topology), Some(Decision::Joined { .. })));
        assert_eq!(correlator.observe(&trouble("base", 1000, 7000), &topology), None);
        let apart = correlator.observe(&trouble("apart", 1000, 7000), &topology);
        assert!(matches!(apart, Some(Decision::Opened(_))));
    }

    #[test]
    fn the_same_trouble_always_opens_the_same_incident() {
        let open = || Correlator::new(Config::default(), TenantId::main()).observe(&trouble("a", 7, 9), &topology());
        assert_eq!(open(), open());
    }

    #[test]
    fn after_the_release_only_new_trouble_opens_another() {
        let mut correlator = Correlator::new(Config::default(), TenantId::main());
        correlator.restore("k", &["front".to_owned()], 0, Some(100_000));
        assert_eq!(correlator.observe(&trouble("front", 99_000, 150_000), &topology()), None);
        assert!(correlator.observe(&trouble("front", 101_000, 150_000), &topology()).is_some());
    }
}
