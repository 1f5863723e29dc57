//! Spans and native histograms: requests of services and calls, counted like those of metrics.

use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::sample::is_stale;
use wardroom_domain::{EntityKind, Labels, NativeHistogram, Relation, RelationKind, SeriesId, Span, SpanKind};
use wardroom_signals::{Outcome, Part, SeriesUse};

use super::span_state::{FamilyKey, SPANS, SpanFamily};
use super::state::Engine;
use crate::durations::native_histogram_counts;
use crate::traces::Callee;

/// Entities up to which spans add entities.
const MAX_SPAN_ENTITIES: usize = 20_000;
/// Services, and (caller, callee) pairs, with span durations of their own.
const MAX_SPAN_FAMILIES: usize = 10_000;
/// Series of native histograms that detection uses.
const MAX_NATIVE_SERIES: usize = 20_000;
/// A relation that spans show is reported to the graph again after this time, in ms of telemetry's time.
const RELATION_INTERVAL_MS: i64 = 60_000;

/// The resource of a sender's spans is read at this interval, in ms of telemetry's time.
const SENDER_INTERVAL_MS: i64 = 10_000;
/// Attribute with the version of the sender.
const SERVICE_VERSION: &str = "service.version";

impl Engine {
    /// Adds a native histogram of a known series.
    pub fn histogram(&mut self, id: SeriesId, histogram: &NativeHistogram) {
        let Some(series) = self.series.get(id.index()).filter(|_| !is_stale(histogram.sum)) else { return };
        let (entity, labels) = (series.usage.entity, series.labels.clone());
        self.advance(entity, histogram.ts_ms);
        if !self.spans.natives.contains_key(&id.0) {
            if self.spans.natives.len() >= MAX_NATIVE_SERIES {
                self.limited.native_histograms += 1;
                return;
            }
            let native = self
                .native_use(&labels)
                .map(|(usage, outcome, unit)| (self.points.add_histogram(&usage, outcome), unit));
            self.spans.natives.insert(id.0, native.unwrap_or_default());
        }
        let Some((parts, unit)) = self.spans.natives.get(&id.0).filter(|(parts, _)| !parts.is_empty()) else { return };
        self.points.observe_counts(parts, histogram.ts_ms, &native_histogram_counts(histogram, *unit));
    }

    /// Returns what a native histogram means, which is what its series of sums would mean, with its unit in seconds.
    fn native_use(&self, labels: &Labels) -> Option<(SeriesUse, Outcome, f64)> {
        let sum = format!("{}_sum", labels.name());
        let renamed = labels.iter().map(|(name, value)| (name, if name == NAME_LABEL { sum.as_str() } else { value }));
        let meaning = self.catalog.meaning(&Labels::new(renamed.collect()), None);
        meaning.uses.into_iter().find_map(|usage| match usage.part {
            Part::DurationSum(outcome) => {
                let unit = usage.scale;
                Some((usage, outcome, unit))
            }
            _ => None,
        })
    }

    /// Adds one span.
    pub fn span(&mut self, span: &Span) {
        let end_ms = span.end.millis().min(self.cap_ms);
        let found = self.catalog.entity_of_resource(&span.labels);
        let Some(entity) = found.entity.filter(|entity| !entity.is_empty()) else { return };
        // Bounds memory against senders with unlimited names: entities beyond the limit are ignored.
        let service = match self.entities.find(&entity) {
            Some(known) => known,
            None if self.entities.list().len() >= MAX_SPAN_ENTITIES => {
                self.limited.span_services += 1;
                return;
            }
            None => self.entities.id(&entity),
        };
        self.observe_sender(service, span, (&found.aliases, &found.relations), end_ms);
        let failed = span.failed || self.catalog.outcome_of(&span.labels) == Outcome::Failed;
        let is_client = matches!(span.kind, SpanKind::Client | SpanKind::Producer);
        let peer = if is_client { self.catalog.peer_of_span(&span.labels) } else { None };
        let mut calls = std::mem::take(&mut self.spans.calls);
        self.spans.traces.observe(span, (service, peer), end_ms, failed, &mut calls);
        if let SpanKind::Server | SpanKind::Consumer = span.kind {
            self.add_request((service, None), end_ms, span.seconds(), failed);
        }
        for call in calls.drain(..) {
            let callee = match call.callee {
                Callee::Known(callee) => callee,
                Callee::Named(named) => match self.entities.find(&named) {
                    Some(known) => known,
                    None if self.entities.list().len() >= MAX_SPAN_ENTITIES => continue,
                    None => self.entities.id(&named),
                },
            };
            self.add_request((call.caller, Some(callee)), call.at_ms, call.seconds, call.failed);
        }
        self.spans.calls = calls;
        self.advance(service, end_ms);
    }

    /// Records what the resource of a span says of its sender, at an interval and when the version changes.
    fn observe_sender(
        &mut self,
        service: u32,
        span: &Span,
        (aliases, relations): (&[String], &[Relation]),
        at_ms: i64,
    ) {
        let version = span.labels.get(SERVICE_VERSION).unwrap_or_default();
        let sender = self.spans.senders.entry(service).or_default();
        if sender.version == version && at_ms < sender.observed_ms.saturating_add(SENDER_INTERVAL_MS) {
            return;
        }
        sender.observed_ms = sender.observed_ms.max(at_ms);
        let entity = self.entities.get(service);
        self.graph.observe(entity, aliases, relations, at_ms);
        if !version.is_empty() {
            if sender.version != version {
                version.clone_into(&mut sender.version);
            }
            self.inferred.observe_version(entity, version, at_ms, &mut self.events);
        }
    }

    fn add_request(&mut self, key: FamilyKey, at_ms: i64, seconds: f64, failed: bool) {
        if !self.spans.families.contains_key(&key) {
            if self.spans.families.len() >= MAX_SPAN_FAMILIES {
                self.limited.span_families += 1;
                return;
            }
            let peer = key.1.map(|peer| self.entities.get(peer));
            let stream = self.points.stream(self.entities.get(key.0), peer, SPANS);
            let family = SpanFamily { stream, newest_ms: at_ms, related_ms: i64::MIN };
            self.spans.families.insert(key, family);
        }
        let Some(family) = self.spans.families.get_mut(&key) else { return };
        family.newest_ms = family.newest_ms.max(at_ms);
        self.points.observe_request(family.stream, at_ms, seconds, failed);
        if let (caller, Some(callee)) = key
            && at_ms >= family.related_ms.saturating_add(RELATION_INTERVAL_MS)
        {
            family.related_ms = at_ms;
            let (from, to) = (self.entities.get(caller).clone(), self.entities.get(callee).clone());
            let kind = match to.kind {
                EntityKind::Database | EntityKind::Cache | EntityKind::Queue => RelationKind::Uses,
                _ => RelationKind::Calls,
            };
            let relation = Relation { from: from.clone(), kind, to };
            self.graph.observe(&from, &[], &[relation], at_ms);
        }
    }
}
