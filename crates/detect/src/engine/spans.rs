//! What spans and native histograms tell, put where `_bucket` series are joined: one way leads to the
//! signals of a service, whatever its senders speak.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::batch::is_stale;
use wardroom_domain::{NativeHistogram, Sample, SeriesId, Span, SpanKind};

use super::{Engine, unit_seconds};
use crate::coarse::{BOUNDS, Counts, Durations, counts_of};
use crate::histogram::Bound;
use crate::traces::{Call, Callee, Traces};

/// The family that spans make.
const METRIC: &str = "span_duration_seconds";
/// Services and pairs of them whose spans are told apart.
const FAMILIES: usize = 20_000;

/// Of which service, to which peer (nothing for what it serves itself), and whether they failed.
type Key = (u32, Option<String>, bool);

/// What is kept of the spans and native histograms of a tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Spans {
    traces: Traces,
    /// The calls that a span made clear.
    calls: Vec<Call>,
    families: BTreeMap<Key, Family>,
    /// Those that grew in this batch.
    moved: Vec<Key>,
    /// Native histograms, by series: their buckets.
    natives: BTreeMap<u32, Vec<u32>>,
}

/// Durations of spans, and their buckets.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Family {
    durations: Durations,
    buckets: Vec<u32>,
    dirty: bool,
}

impl Spans {
    /// Native histograms, by series: their buckets.
    pub(super) const fn natives(&self) -> &BTreeMap<u32, Vec<u32>> {
        &self.natives
    }

    /// Follows series and buckets to their new places.
    pub(super) fn renumber(&mut self, series: &[Option<u32>], buckets: &[Option<u32>]) {
        let moved = |own: &[u32]| own.iter().filter_map(|at| buckets.get(*at as usize).copied().flatten()).collect();
        let natives = std::mem::take(&mut self.natives).into_iter();
        let place = |id: u32| series.get(id as usize).copied().flatten();
        self.natives = natives.filter_map(|(id, own)| Some((place(id)?, moved(&own)))).collect();
        self.families.values_mut().for_each(|family| family.buckets = moved(&family.buckets));
    }
}

impl Engine {
    /// Takes a native histogram of a known series.
    pub fn histogram(&mut self, id: SeriesId, histogram: &NativeHistogram) {
        let Some(series) = self.series.get(id.index()).filter(|_| !is_stale(histogram.sum)) else { return };
        let (service, labels) = (series.service, series.labels.clone());
        let Some(unit) = unit_seconds(labels.name()) else { return };
        let buckets = match self.spans.natives.get(&id.0) {
            Some(buckets) => buckets.clone(),
            None => {
                let (peer, failed) = (self.rules.peer_of(&labels), self.rules.failed(&labels));
                let buckets = self.add_coarse(service, labels.name(), peer, failed, unit);
                self.spans.natives.insert(id.0, buckets.clone());
                buckets
            }
        };
        self.put_coarse(service, &buckets, &counts_of(histogram, unit), histogram.ts_ms);
        self.moved_on(service, histogram.ts_ms);
    }

    /// Takes one span.
    pub fn span(&mut self, span: &Span) {
        let name = self.rules.service_of(&span.labels);
        // Whatever names senders invent: what is new beyond the limit is not told apart any more.
        let service = match self.service_ids.get(name) {
            Some(known) => *known,
            None if self.services.len() >= FAMILIES => return,
            None => self.service(name.to_owned()),
        };
        let failed = span.failed || self.rules.failed(&span.labels);
        let Spans { traces, calls, .. } = &mut self.spans;
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
        self.moved_on(service, span.end.millis());
    }

    fn add_duration(&mut self, service: u32, peer: Option<String>, failed: bool, seconds: f64) {
        let key = (service, peer, failed);
        if !self.spans.families.contains_key(&key) {
            if self.spans.families.len() >= FAMILIES {
                return;
            }
            let buckets = self.add_coarse(service, METRIC, key.1.as_deref(), failed, 1.0);
            self.spans.families.insert(key.clone(), Family { buckets, ..Family::default() });
        }
        if let Some(family) = self.spans.families.get_mut(&key) {
            family.durations.add(seconds);
            if !std::mem::replace(&mut family.dirty, true) {
                self.spans.moved.push(key);
            }
        }
    }

    /// Puts the durations of this batch's spans where the signals are made.
    pub(super) fn settle_spans(&mut self) {
        for key in std::mem::take(&mut self.spans.moved) {
            let Some(family) = self.spans.families.get_mut(&key) else { continue };
            family.dirty = false;
            let (buckets, counts) = (family.buckets.clone(), family.durations.counts());
            let at_ms = self.services[key.0 as usize].newest_ms;
            self.put_coarse(key.0, &buckets, &counts, at_ms);
        }
    }

    /// Buckets of our own for what does not come as `_bucket` series.
    fn add_coarse(&mut self, service: u32, metric: &str, peer: Option<&str>, failed: bool, unit: f64) -> Vec<u32> {
        let bounds = BOUNDS.iter().map(|seconds| Bound::of(seconds / unit)).chain([Bound::INFINITE]);
        bounds.map(|bound| self.add_bucket(service, metric, peer.map(str::to_owned), bound, failed, false)).collect()
    }

    /// Puts what was counted so far into a family's own buckets.
    fn put_coarse(&mut self, service: u32, buckets: &[u32], counts: &Counts, at_ms: i64) {
        for (id, count) in buckets.iter().zip(counts) {
            self.put_bucket(*id, service, Sample { ts_ms: at_ms, value: *count });
        }
    }
}
