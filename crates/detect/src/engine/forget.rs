//! Eviction of services, span families and signals that telemetry no longer mentions, so that memory does not grow with
//! every name that was ever sent.

use super::{Engine, SeriesRole};

/// A service, span family or signal without telemetry for this long is evicted, in ms of event time.
pub(super) const RETENTION_MS: i64 = 24 * 3_600_000;
/// Interval between evictions, in ms of event time.
const EVICTION_INTERVAL_MS: i64 = 600_000;

impl Engine {
    /// Evicts what is older than [`RETENTION_MS`], once per interval of event time, so that a replay evicts the same.
    /// `before_ms` is the watermark before the batch.
    pub(super) fn evict_old(&mut self, before_ms: i64) {
        let interval = |at_ms: i64| at_ms.div_euclid(EVICTION_INTERVAL_MS);
        if interval(self.watermark_ms) == interval(before_ms) {
            return;
        }
        let oldest_ms = self.watermark_ms.saturating_sub(RETENTION_MS);
        self.signals.evict_before(oldest_ms);
        self.evict_span_families(oldest_ms);
        self.evict_services(oldest_ms);
    }

    fn evict_span_families(&mut self, oldest_ms: i64) {
        let mut keep = vec![true; self.buckets.len()];
        let buckets = &self.buckets;
        let is_old = |ids: &[u32]| {
            ids.last().is_none_or(|id| buckets[*id as usize].increase.newest_ms().is_none_or(|at_ms| at_ms < oldest_ms))
        };
        self.spans.families.retain(|_, family| {
            let evicted = !family.dirty && is_old(&family.buckets);
            if evicted {
                family.buckets.iter().for_each(|id| keep[*id as usize] = false);
            }
            !evicted
        });
        if keep.contains(&false) {
            let new_indices = self.renumber_buckets(&keep);
            let series: Vec<Option<u32>> = (0..self.series.len() as u32).map(Some).collect();
            self.spans.renumber(&series, &new_indices);
            for series in &mut self.series {
                if let SeriesRole::Bucket(index) = &mut series.role {
                    // Buckets of series are never among the removed ones.
                    *index = new_indices[*index as usize].unwrap_or_default();
                }
            }
        }
    }

    /// Evicts services without series, span families and recent spans.
    fn evict_services(&mut self, oldest_ms: i64) {
        let mut keep: Vec<bool> =
            self.services.iter().map(|service| service.dirty || service.newest_ms >= oldest_ms).collect();
        self.series.iter().for_each(|series| keep[series.service as usize] = true);
        self.spans.families.keys().for_each(|(service, ..)| keep[*service as usize] = true);
        if !keep.contains(&false) {
            return;
        }
        let new_indices = super::renumber::dense_indices(&keep);
        let new_index = |index: u32| new_indices.get(index as usize).copied().flatten();
        super::renumber::retain_by(&mut self.services, &keep);
        self.service_ids.retain(|_, index| new_index(*index).map(|new| *index = new).is_some());
        for series in &mut self.series {
            series.service = new_index(series.service).unwrap_or_default();
        }
        self.dirty = self.dirty.iter().filter_map(|index| new_index(*index)).collect();
        self.spans.renumber_services(new_index);
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{EntityRules, Labels, Sample, SeriesId, Span, SpanKind, Timestamp};

    use super::*;
    use crate::Config;

    fn span(service: &str, id: u8, at_ms: i64) -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [id; 8],
            parent_id: [0; 8],
            kind: if id == 0 { SpanKind::Server } else { SpanKind::Client },
            name: "call".into(),
            start: Timestamp::from_millis(at_ms - 100),
            end: Timestamp::from_millis(at_ms),
            failed: false,
            labels: Labels::of(&[("service.name", service), ("peer.service", "queue")]),
        }
    }

    #[test]
    fn names_that_are_no_longer_sent_are_evicted_and_the_others_keep_their_state() {
        let mut engine = Engine::new(Config::default(), EntityRules::default());
        engine.add_series(&Labels::of(&[("__name__", "a_seconds_bucket"), ("service", "lasting"), ("le", "+Inf")]));
        for minute in 0..3000_i64 {
            let at_ms = minute * 60_000;
            engine.observe(SeriesId(0), &[Sample { ts_ms: at_ms, value: minute as f64 * 50.0 }]);
            if minute < 20 {
                for id in [0, 1] {
                    engine.span(&span(&format!("job-{minute}"), id, at_ms));
                    engine.span(&span("known", id, at_ms));
                }
            }
            engine.finish_batch();
            if minute == 25 {
                assert_eq!(engine.services.len(), 22);
                assert_eq!(engine.spans.families.len(), 42);
            }
        }
        let services: Vec<&str> = engine.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(services, ["lasting"]);
        assert_eq!(engine.service_ids.len(), 1);
        assert!(engine.spans.families.is_empty());
        assert_eq!(engine.buckets.len(), 1);
        assert!(engine.signals().all(|(key, _)| key.service == "lasting") && engine.signals.calls().next().is_none());
        engine.span(&span("new", 0, 3000 * 60_000));
        engine.finish_batch();
        assert_eq!(engine.services[1].name, "new");
        let (_, signal) = engine.signals().next().unwrap();
        assert!(signal.detector.count() > 800, "its state is unchanged: {}", signal.detector.count());
    }
}
