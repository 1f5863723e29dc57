//! The services, called services and deployments that a tenant's log lines, spans and deployments name, and their
//! limits.
//!
//! Series have theirs in the registry. Like there, intake decides once, and a replay accepts what was accepted. What
//! was not named within [`RETENTION_MS`] is forgotten, so that a limit that is reached does not last.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use wardroom_domain::{RefusalReason, Span, SpanKind};
use wardroom_head::{Config, EntityLimit};
use wardroom_signals::Catalog;
use wardroom_sources::{EventRecords, RefusalCause};

use crate::state::limits::{count_limited, entity_refusal};

/// An entity that no record names for this long is forgotten, in ms of arrival time.
const RETENTION_MS: i64 = 2 * 3_600_000;
/// Minimum time between two removals of old entities, in ms of arrival time: each visits all entities.
const EVICTION_INTERVAL_MS: i64 = 60_000;
/// Label of a client span with the name of the called service.
const PEER_SERVICE: &str = "peer.service";

/// The entities of one tenant.
#[derive(Debug, Default)]
pub(crate) struct EventEntities {
    services: RecentEntities,
    calls: RecentEntities,
    deployments: RecentEntities,
    hasher: RandomState,
}

/// Entities by the hash of their names, which takes less memory than the names, with the time of the newest record and
/// the size of the names: detection keeps the names.
#[derive(Debug, Default)]
struct RecentEntities {
    known: BTreeMap<u64, (i64, usize)>,
    /// Size of the names of all.
    name_bytes: usize,
    evicted_ms: i64,
}

/// The limit that a new entity exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exceeded {
    Number,
    NameBytes,
}

impl RecentEntities {
    /// Records that an entity is named at a time. Returns the limit if it is new and exceeds one: their number, and the
    /// size of their names.
    fn admit(&mut self, (hash, bytes): (u64, usize), at_ms: i64, limits: (usize, usize)) -> Result<(), Exceeded> {
        if let Some((newest_ms, _)) = self.known.get_mut(&hash) {
            *newest_ms = at_ms.max(*newest_ms);
            return Ok(());
        }
        if self.check(bytes, limits).is_err() && at_ms.saturating_sub(self.evicted_ms) >= EVICTION_INTERVAL_MS {
            self.evicted_ms = at_ms;
            self.known.retain(|_, (newest_ms, _)| *newest_ms >= at_ms.saturating_sub(RETENTION_MS));
            self.name_bytes = self.known.values().map(|(_, bytes)| bytes).sum();
        }
        self.check(bytes, limits)?;
        self.known.insert(hash, (at_ms, bytes));
        self.name_bytes += bytes;
        Ok(())
    }

    fn check(&self, bytes: usize, (max_entities, max_name_bytes): (usize, usize)) -> Result<(), Exceeded> {
        if self.known.len() >= max_entities {
            return Err(Exceeded::Number);
        }
        if self.name_bytes.saturating_add(bytes) > max_name_bytes { Err(Exceeded::NameBytes) } else { Ok(()) }
    }
}

impl EventEntities {
    /// Returns the records that exceed a limit, by their index among log lines, deployments and spans.
    pub(crate) fn admit(
        &mut self,
        events: EventRecords<'_>,
        config: &Config,
        catalog: &Catalog,
    ) -> Vec<(usize, RefusalCause)> {
        let at_ms = events.received_at.millis();
        let max_name_bytes = config.max_event_name_bytes;
        let mut refused = Vec::new();
        // Most records name the service of the one before.
        let mut known = None;
        let mut admit_service = |entities: &mut Self, service: &str| {
            let hash = entities.hasher.hash_one(service);
            if known == Some(hash) {
                return None;
            }
            let limits = (config.max_services, max_name_bytes);
            let admitted = entities.services.admit((hash, service.len()), at_ms, limits);
            known = admitted.is_ok().then_some(hash).or(known);
            let too_many = || entity_refusal(&EntityLimit::Services(config.max_services));
            admitted.err().map(|exceeded| refusal(exceeded, config, too_many))
        };
        for (index, log) in events.logs.iter().enumerate() {
            let service = if log.service.is_empty() { catalog.service_name(&log.labels) } else { &log.service };
            refused.extend(admit_service(self, service).map(|cause| (index, cause)));
        }
        let mut first = events.logs.len();
        for (index, deployment) in events.deployments.iter().enumerate() {
            let cause = admit_service(self, &deployment.service).or_else(|| {
                let identity = (deployment.at.nanos(), &deployment.service, &deployment.version, &deployment.status);
                let hash = self.hasher.hash_one((identity, deployment.metadata.as_bytes()));
                let bytes = deployment.service.len() + deployment.version.len() + deployment.status.len();
                let admitted = self.deployments.admit((hash, bytes), at_ms, (config.max_deployments, max_name_bytes));
                admitted.err().map(|exceeded| refusal(exceeded, config, || too_many_deployments(config)))
            });
            refused.extend(cause.map(|cause| (first + index, cause)));
        }
        first += events.deployments.len();
        for (index, span) in events.spans.iter().enumerate() {
            let service = catalog.service_name(&span.labels);
            let cause = admit_service(self, service).or_else(|| {
                let called = called_service(span)?;
                let hash = self.hasher.hash_one((service, called));
                let entity = (hash, service.len() + called.len());
                let admitted = self.calls.admit(entity, at_ms, (config.max_calls, max_name_bytes));
                let too_many = || entity_refusal(&EntityLimit::Calls(config.max_calls));
                admitted.err().map(|exceeded| refusal(exceeded, config, too_many))
            });
            refused.extend(cause.map(|cause| (first + index, cause)));
        }
        refused
    }
}

fn called_service(span: &Span) -> Option<&str> {
    let is_call = matches!(span.kind, SpanKind::Client | SpanKind::Producer);
    span.labels.get(PEER_SERVICE).filter(|_| is_call)
}

fn refusal(exceeded: Exceeded, config: &Config, too_many: impl FnOnce() -> RefusalCause) -> RefusalCause {
    match exceeded {
        Exceeded::Number => too_many(),
        Exceeded::NameBytes => entity_refusal(&EntityLimit::EventNameBytes(config.max_event_name_bytes)),
    }
}

fn too_many_deployments(config: &Config) -> RefusalCause {
    count_limited("deployments", 1);
    let limit = config.max_deployments;
    let detail = format!(
        "the tenant sent {limit} different deployments within two hours; send each once or raise head.max-deployments"
    );
    (RefusalReason::EntityLimit, detail)
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Deployment, Labels, LogEntry, Severity, Timestamp};

    use super::*;

    fn log(service: &str) -> LogEntry {
        LogEntry {
            at: Timestamp::from_millis(0),
            severity: Severity::Info,
            message: "m".into(),
            service: service.into(),
            labels: Labels::default(),
        }
    }

    fn deployment(service: &str, version: &str) -> Deployment {
        let (at, status) = (Timestamp::from_millis(0), "success".to_owned());
        Deployment { at, service: service.into(), version: version.into(), status, metadata: Labels::default() }
    }

    fn span(kind: SpanKind, service: &str, peer: &str) -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [1; 8],
            parent_id: [0; 8],
            kind,
            name: "call".into(),
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(1),
            failed: false,
            labels: Labels::of(&[("service.name", service), ("peer.service", peer)]),
        }
    }

    /// Returns the indexes of refused records with the setting that their detail names.
    fn admit(
        entities: &mut EventEntities,
        at_ms: i64,
        (logs, deployments, spans): (&[LogEntry], &[Deployment], &[Span]),
        config: &Config,
    ) -> Vec<(usize, String)> {
        let events = EventRecords { logs, deployments, spans, received_at: Timestamp::from_millis(at_ms) };
        let refused = entities.admit(events, config, &Catalog::builtin());
        let setting = |detail: &str| detail.rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(refused.iter().all(|(_, (reason, _))| *reason == RefusalReason::EntityLimit));
        refused.into_iter().map(|(index, (_, detail))| (index, setting(&detail))).collect()
    }

    #[test]
    fn refuses_what_is_new_beyond_a_limit_and_accepts_what_is_known() {
        let config = Config { max_services: 2, max_calls: 1, max_deployments: 1, ..Config::default() };
        let mut entities = EventEntities::default();
        let logs = [log("a"), log("a"), log("b"), log("c"), log("b")];
        let deployments = [deployment("a", "1"), deployment("a", "1"), deployment("a", "2"), deployment("c", "1")];
        let spans = [
            span(SpanKind::Client, "a", "queue"),
            span(SpanKind::Client, "a", "other"),
            span(SpanKind::Server, "a", "other"),
            span(SpanKind::Server, "c", ""),
            span(SpanKind::Producer, "a", "queue"),
        ];
        let refused = admit(&mut entities, 1_000_000, (&logs, &deployments, &spans), &config);
        let (services, calls) = ("head.max-services".to_owned(), "head.max-calls".to_owned());
        let deployments_limit = "head.max-deployments".to_owned();
        let expected =
            [(3, services.clone()), (7, deployments_limit), (8, services.clone()), (10, calls), (12, services.clone())];
        assert_eq!(refused, expected);
    }

    #[test]
    fn what_is_no_longer_sent_makes_room() {
        let config = Config { max_services: 2, ..Config::default() };
        let mut entities = EventEntities::default();
        assert_eq!(admit(&mut entities, 1_000_000, (&[log("a"), log("b")], &[], &[]), &config), []);
        let later_ms = 1_000_000 + RETENTION_MS;
        assert_eq!(admit(&mut entities, later_ms - 120_000, (&[log("a"), log("c")], &[], &[]), &config).len(), 1);
        assert_eq!(admit(&mut entities, later_ms + 1, (&[log("c"), log("a")], &[], &[]), &config), [], "b is old");
        assert_eq!(admit(&mut entities, later_ms + 2, (&[log("b")], &[], &[]), &config).len(), 1);
    }

    #[test]
    fn a_flood_is_refused_and_takes_no_memory() {
        let (config, mut entities) = (Config::default(), EventEntities::default());
        let deployments: Vec<_> = (0..30_000).map(|index| deployment("a", &format!("v{index}"))).collect();
        let logs: Vec<_> = (0..30_000).map(|index| log(&format!("s{index}"))).collect();
        assert_eq!(admit(&mut entities, 1_000_000, (&[], &deployments, &[]), &config).len(), 20_000);
        // One service is that of the deployments.
        assert_eq!(admit(&mut entities, 1_000_000, (&logs, &[], &[]), &config).len(), 20_001);
        assert_eq!(entities.deployments.known.len(), config.max_deployments);
        assert_eq!(entities.services.known.len(), config.max_services);
    }

    #[test]
    fn long_names_are_refused_by_their_bytes_until_old_ones_are_forgotten() {
        let (config, mut entities) = (Config::default(), EventEntities::default());
        let setting = "head.max-event-name-bytes";
        let long = |index: usize| format!("{index:06}{}", "n".repeat(4090));
        // Names of 4 KiB; a service of one letter is beside them.
        let fitting = config.max_event_name_bytes / 4097;
        let deployments: Vec<_> =
            (0..10_000).map(|index| Deployment { status: String::new(), ..deployment("a", &long(index)) }).collect();
        let spans: Vec<_> = (0..10_000).map(|index| span(SpanKind::Client, "a", &long(index))).collect();
        let logs: Vec<_> = (0..10_000).map(|index| log(&long(index))).collect();
        for (kind, records) in
            [(&[][..], &deployments[..], &[][..]), (&[], &[], &spans), (&logs, &[], &[])].into_iter().enumerate()
        {
            let refused = admit(&mut entities, 1_000_000, records, &config);
            assert!((10_000 - fitting..=10_000 - fitting + 2).contains(&refused.len()), "{kind}: {}", refused.len());
            assert!(refused.iter().all(|(_, named)| named == setting), "{kind}");
            assert_eq!(admit(&mut entities, 1_000_001, records, &config).len(), refused.len(), "{kind}: known names");
        }
        let later = (&[][..], &deployments[9000..9100], &[][..]);
        assert_eq!(admit(&mut entities, 1_000_000 + 2 * RETENTION_MS, later, &config), []);
        assert_eq!(entities.deployments.name_bytes, 100 * 4097);
    }
}
