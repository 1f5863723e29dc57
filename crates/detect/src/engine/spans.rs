//! Spans and native histograms, converted to the buckets that `_bucket` series use, so that the signals of a service
//! are computed the same way for every protocol.

use wardroom_domain::sample::is_stale;
use wardroom_domain::{NativeHistogram, Sample, SeriesId, Span, SpanKind};

use super::span_state::{SpanFamily, SpanState};
use super::{Engine, unit_seconds};
use crate::durations::{BOUNDS, Counts, native_histogram_counts};
use crate::histogram::Bound;
use crate::traces::Callee;

/// The metric family of span durations.
const SPAN_DURATION_METRIC: &str = "span_duration_seconds";
/// Services up to which spans add services.
const MAX_SPAN_SERVICES: usize = 20_000;
/// Services, and (caller, callee) pairs, with span durations of their own.
const MAX_SPAN_FAMILIES: usize = 10_000;
/// Series of native histograms that detection uses.
const MAX_NATIVE_SERIES: usize = 20_000;

impl Engine {
    /// Adds a native histogram of a known series.
    pub fn histogram(&mut self, id: SeriesId, histogram: &NativeHistogram) {
        let Some(series) = self.series.get(id.index()).filter(|_| !is_stale(histogram.sum)) else { return };
        let (service, labels) = (series.service, series.labels.clone());
        let Some(unit) = unit_seconds(labels.name()) else { return };
        let buckets = match self.spans.natives.get(&id.0) {
            Some(buckets) => buckets.clone(),
            None if self.spans.natives.len() >= MAX_NATIVE_SERIES => {
                self.limited.native_histograms += 1;
                return;
            }
            None => {
                let (peer, failed) = (self.rules.peer_of(&labels), self.rules.is_failure(&labels));
                let buckets = self.add_duration_buckets(service, labels.name(), peer, failed, unit);
                self.spans.natives.insert(id.0, buckets.clone());
                buckets
            }
        };
        self.observe_durations(service, &buckets, &native_histogram_counts(histogram, unit), histogram.ts_ms);
        self.mark_updated(service, histogram.ts_ms);
    }

    /// Adds one span.
    pub fn span(&mut self, span: &Span) {
        let name = self.rules.service_of(&span.labels);
        // Bounds memory against senders with unlimited service names: services beyond the limit are ignored.
        let service = match self.service_ids.get(name) {
            Some(known) => *known,
            None if self.services.len() >= MAX_SPAN_SERVICES => {
                self.limited.span_services += 1;
                return;
            }
            None => self.service(name.to_owned()),
        };
        let failed = span.failed || self.rules.is_failure(&span.labels);
        let SpanState { traces, calls, .. } = &mut self.spans;
        traces.observe(span, service, failed, calls);
        if let SpanKind::Server | SpanKind::Consumer = span.kind {
            self.add_duration(service, None, failed, span.seconds());
        }
        for call in std::mem::take(&mut self.spans.calls) {
            let callee = match call.callee {
                Callee::Known(callee) => self.services[callee as usize].name.clone(),
                Callee::Named(name) => name,
            };
            self.add_duration(call.caller, Some(callee), call.failed, call.seconds);
        }
        self.mark_updated(service, span.end.millis());
    }

    fn add_duration(&mut self, service: u32, peer: Option<String>, failed: bool, seconds: f64) {
        let key = (service, peer, failed);
        if !self.spans.families.contains_key(&key) {
            if self.spans.families.len() >= MAX_SPAN_FAMILIES {
                self.limited.span_families += 1;
                return;
            }
            let buckets = self.add_duration_buckets(service, SPAN_DURATION_METRIC, key.1.as_deref(), failed, 1.0);
            self.spans.families.insert(key.clone(), SpanFamily { buckets, ..SpanFamily::default() });
        }
        if let Some(family) = self.spans.families.get_mut(&key) {
            family.durations.add(seconds);
            if !std::mem::replace(&mut family.dirty, true) {
                self.spans.updated.push(key);
            }
        }
    }

    /// Writes the durations of this batch's spans to their buckets.
    pub(super) fn flush_spans(&mut self) {
        for key in std::mem::take(&mut self.spans.updated) {
            let Some(family) = self.spans.families.get_mut(&key) else { continue };
            family.dirty = false;
            let (buckets, counts) = (family.buckets.clone(), family.durations.counts());
            let at_ms = self.services[key.0 as usize].newest_ms;
            self.observe_durations(key.0, &buckets, &counts, at_ms);
        }
    }

    /// Adds buckets for durations that do not arrive as `_bucket` series.
    fn add_duration_buckets(
        &mut self,
        service: u32,
        metric: &str,
        peer: Option<&str>,
        failed: bool,
        unit: f64,
    ) -> Vec<u32> {
        let bounds = BOUNDS.iter().map(|seconds| Bound::new(seconds / unit)).chain([Bound::INFINITE]);
        bounds.map(|bound| self.add_bucket(service, metric, peer.map(str::to_owned), bound, failed, false)).collect()
    }

    /// Writes cumulative counts to the buckets of a family.
    fn observe_durations(&mut self, service: u32, buckets: &[u32], counts: &Counts, at_ms: i64) {
        for (id, count) in buckets.iter().zip(counts) {
            self.observe_bucket(*id, service, Sample { ts_ms: at_ms, value: *count });
        }
    }
}
