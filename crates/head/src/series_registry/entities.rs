//! The services, histogram families and called services of a tenant's series, and their limits.
//!
//! Detection has state for each of them, and its cost grows with their number: a sender that puts an id into a metric
//! name or a service name must not slow detection down for all others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use wardroom_domain::Labels;

use crate::config::Config;

/// The limit that a series would exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityLimit {
    /// `head.max-services`.
    Services(usize),
    /// `head.max-histogram-families-per-service`, with the service.
    FamiliesOfService(usize, String),
    /// `head.max-histogram-families`.
    Families(usize),
    /// `head.max-calls`.
    Calls(usize),
    /// `head.max-event-name-bytes`.
    EventNameBytes(usize),
}

impl EntityLimit {
    /// Returns the name of the limit in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Services(_) => "services",
            Self::FamiliesOfService(..) => "histogram_families_per_service",
            Self::Families(_) => "histogram_families",
            Self::Calls(_) => "calls",
            Self::EventNameBytes(_) => "event_name_bytes",
        }
    }
}

impl fmt::Display for EntityLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services(limit) => {
                write!(f, "the tenant has {limit} services; remove ids from service names or raise head.max-services")
            }
            Self::FamiliesOfService(limit, service) => write!(
                f,
                "service {service:?} has {limit} histogram families; remove ids from metric names or raise \
                 head.max-histogram-families-per-service"
            ),
            Self::Families(limit) => write!(
                f,
                "the tenant has {limit} histogram families; remove ids from metric names or raise \
                 head.max-histogram-families"
            ),
            Self::Calls(limit) => write!(
                f,
                "the tenant has {limit} pairs of a service and one that it calls; remove ids and ports from the names \
                 of called services or raise head.max-calls"
            ),
            Self::EventNameBytes(limit) => write!(
                f,
                "the names in the tenant's log lines, spans and deployments of the last two hours have {limit} bytes; \
                 shorten the names of services and versions or raise head.max-event-name-bytes"
            ),
        }
    }
}

/// The names that limits count, in the labels of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesNames<'a> {
    /// The service or workload that the series is of; empty if unknown.
    pub service: &'a str,
    /// The service that it calls; empty if it is no client's.
    pub called: &'a str,
}

/// Finds the names in labels. What labels mean is known elsewhere: a caller says how to look.
#[derive(Clone)]
pub struct NameLookup(Arc<dyn for<'a> Fn(&'a Labels) -> SeriesNames<'a> + Send + Sync>);

impl NameLookup {
    /// Creates a lookup.
    pub fn new(lookup: impl for<'a> Fn(&'a Labels) -> SeriesNames<'a> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// A lookup by one label for each.
    pub fn by_label(service: &'static str, called: &'static str) -> Self {
        Self::new(move |labels| {
            let value = |name| labels.get(name).unwrap_or_default();
            SeriesNames { service: value(service), called: value(called) }
        })
    }
}

impl fmt::Debug for NameLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameLookup")
    }
}

/// The entities of all series in a registry.
#[derive(Debug)]
pub(crate) struct Entities {
    lookup: NameLookup,
    services: BTreeMap<Box<str>, Service>,
    families: usize,
    calls: usize,
}

/// The histogram families of a service.
#[derive(Debug, Default)]
struct Service {
    /// Metrics by called service; an empty name for the requests that the service handles itself.
    metrics: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    families: usize,
}

impl Entities {
    pub(crate) fn new(lookup: NameLookup) -> Self {
        Self { lookup, services: BTreeMap::new(), families: 0, calls: 0 }
    }

    /// Adds the entities of a new series.
    pub(crate) fn add(&mut self, labels: &Labels) {
        let names = (self.lookup.0)(labels);
        let service = names.service;
        if !self.services.contains_key(service) {
            self.services.insert(service.into(), Service::default());
        }
        let (Some(metric), peer) = (histogram_family(labels), names.called) else { return };
        let Some(service) = self.services.get_mut(service) else { return };
        if !service.metrics.contains_key(peer) {
            service.metrics.insert(peer.into(), BTreeSet::new());
            self.calls += usize::from(!peer.is_empty());
        }
        if service.metrics.get_mut(peer).is_some_and(|metrics| metrics.insert(metric.into())) {
            service.families += 1;
            self.families += 1;
        }
    }

    /// Returns the limit that a new series would exceed.
    pub(crate) fn exceeded(&self, labels: &Labels, config: &Config) -> Option<EntityLimit> {
        let SeriesNames { service: name, called: peer } = (self.lookup.0)(labels);
        let service = self.services.get(name);
        if service.is_none() && self.services.len() >= config.max_services {
            return Some(EntityLimit::Services(config.max_services));
        }
        let metric = histogram_family(labels)?;
        let metrics = service.and_then(|service| service.metrics.get(peer));
        if metrics.is_some_and(|metrics| metrics.contains(metric)) {
            return None;
        }
        let of_service = config.max_histogram_families_per_service;
        if service.map_or(0, |service| service.families) >= of_service {
            return Some(EntityLimit::FamiliesOfService(of_service, name.to_owned()));
        }
        if self.families >= config.max_histogram_families {
            return Some(EntityLimit::Families(config.max_histogram_families));
        }
        (metrics.is_none() && !peer.is_empty() && self.calls >= config.max_calls)
            .then_some(EntityLimit::Calls(config.max_calls))
    }
}

/// Returns the metric of a bucket's series.
fn histogram_family(labels: &Labels) -> Option<&str> {
    labels.name().strip_suffix("_bucket").filter(|_| labels.get("le").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            max_services: 2,
            max_histogram_families_per_service: 2,
            max_histogram_families: 3,
            max_calls: 1,
            ..Config::default()
        }
    }

    fn bucket(service: &str, metric: &str, peer: &str) -> Labels {
        let name = format!("{metric}_bucket");
        Labels::of(&[("__name__", &name), ("service", service), ("le", "1"), ("peer_service", peer)])
    }

    /// Adds a series unless that exceeds a limit; returns the limit's name.
    fn try_add(entities: &mut Entities, labels: &Labels) -> Option<&'static str> {
        let exceeded = entities.exceeded(labels, &config());
        if exceeded.is_none() {
            entities.add(labels);
        }
        exceeded.map(|limit| limit.as_str())
    }

    #[test]
    fn each_limit_refuses_only_what_is_new() {
        let mut entities = Entities::new(NameLookup::by_label("service", "peer_service"));
        let mut add = |labels: Labels| try_add(&mut entities, &labels);
        assert_eq!(add(bucket("a", "m1", "")), None);
        assert_eq!(add(bucket("a", "m2", "")), None);
        assert_eq!(add(bucket("a", "m3", "")), Some("histogram_families_per_service"));
        assert_eq!(add(bucket("a", "m2", "")), None, "a known family gets more series");
        assert_eq!(add(Labels::of(&[("__name__", "depth"), ("service", "a"), ("id", "7")])), None, "not a histogram");
        assert_eq!(add(bucket("b", "m1", "c")), None);
        assert_eq!(add(bucket("b", "m2", "")), Some("histogram_families"));
        assert_eq!(add(bucket("c", "m1", "")), Some("services"));
        assert_eq!(add(Labels::of(&[("__name__", "depth"), ("service", "c")])), Some("services"));
    }

    #[test]
    fn pairs_of_services_are_limited_and_counted_once() {
        let mut entities = Entities::new(NameLookup::by_label("service", "peer_service"));
        let config = Config { max_histogram_families: 100, max_histogram_families_per_service: 100, ..config() };
        for metric in ["m1", "m2"] {
            let labels = bucket("a", metric, "b");
            assert_eq!(entities.exceeded(&labels, &config), None, "the same pair");
            entities.add(&labels);
        }
        assert_eq!(entities.exceeded(&bucket("a", "m1", "c"), &config), Some(EntityLimit::Calls(1)));
        assert_eq!(entities.exceeded(&bucket("a", "m3", ""), &config), None);
    }

    #[test]
    fn a_refusal_names_the_setting() {
        let limits = [
            (EntityLimit::Services(1), "head.max-services"),
            (EntityLimit::FamiliesOfService(1, "a".into()), "head.max-histogram-families-per-service"),
            (EntityLimit::Families(1), "head.max-histogram-families"),
            (EntityLimit::Calls(1), "head.max-calls"),
            (EntityLimit::EventNameBytes(1), "head.max-event-name-bytes"),
        ];
        for (limit, setting) in limits {
            assert!(limit.to_string().ends_with(setting), "{limit}");
        }
    }
}
