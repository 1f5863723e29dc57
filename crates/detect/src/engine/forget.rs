//! Eviction of entities, span families and signals that telemetry no longer mentions, so that memory does not grow with
//! every name that was ever sent.

use wardroom_domain::Timestamp;

use super::state::Engine;

/// What has no telemetry for this long is evicted, in ms of event time.
pub(super) const RETENTION_MS: i64 = 24 * 3_600_000;
/// The same where there is no room for more.
const SHORT_RETENTION_MS: i64 = 3_600_000;
/// Interval between evictions, in ms of event time.
const EVICTION_INTERVAL_MS: i64 = 600_000;
/// Entities from which on the short retention holds.
const MANY_ENTITIES: usize = 100_000;

impl Engine {
    /// Evicts what is old, once per interval of event time, so that a replay evicts the same. `before_ms` is the
    /// watermark before the batch.
    pub(super) fn evict_old(&mut self, before_ms: i64) {
        let interval = |at_ms: i64| at_ms.div_euclid(EVICTION_INTERVAL_MS);
        if interval(self.watermark_ms) == interval(before_ms) {
            return;
        }
        let is_full = self.signals.is_full() || self.entities.list().len() >= MANY_ENTITIES;
        let retention_ms = if is_full { SHORT_RETENTION_MS } else { RETENTION_MS };
        let oldest_ms = self.watermark_ms.saturating_sub(retention_ms);
        self.signals.evict_before(oldest_ms);
        self.feeds.clear();
        for stream in self.spans.evict_before(oldest_ms) {
            self.points.remove_stream(stream);
        }
        self.measured.retain(|_, newest_ms| *newest_ms >= oldest_ms);
        self.events.evict_before(Timestamp::from_millis(self.watermark_ms.saturating_sub(RETENTION_MS)));
        self.inferred.evict(self.watermark_ms);
        for known in self.entities.list().iter().filter(|known| known.newest_ms >= oldest_ms) {
            self.graph.touch(&known.entity, known.newest_ms);
        }
        self.graph.evict(self.watermark_ms);
        self.evict_entities(oldest_ms);
    }

    /// Evicts entities without series, span families and recent telemetry.
    fn evict_entities(&mut self, oldest_ms: i64) {
        let mut keep: Vec<bool> = self.entities.list().iter().map(|known| known.newest_ms >= oldest_ms).collect();
        self.series.iter().for_each(|series| keep[series.usage.entity as usize] = true);
        self.spans.entities().for_each(|entity| keep[entity as usize] = true);
        if !keep.contains(&false) {
            return;
        }
        let new_indices = super::dense_indices::dense_indices(&keep);
        let new_index = |index: u32| new_indices.get(index as usize).copied().flatten();
        self.entities.retain(&keep);
        for series in &mut self.series {
            series.usage.entity = new_index(series.usage.entity).unwrap_or_default();
        }
        self.spans.renumber_entities(new_index);
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Labels, Sample, SeriesId, Span, SpanKind};
    use wardroom_signals::Catalog;

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
        let mut engine = Engine::new(Config::default(), Catalog::builtin());
        let bucket = |le: &str| {
            Labels::of(&[("__name__", "http_request_duration_seconds_bucket"), ("service", "lasting"), ("le", le)])
        };
        engine.add_series(&bucket("0.1"), None);
        engine.add_series(&bucket("+Inf"), None);
        for minute in 0..3000_i64 {
            let at_ms = minute * 60_000;
            for id in [0, 1] {
                engine.observe(SeriesId(id), &[Sample { ts_ms: at_ms, value: minute as f64 * 300.0 }]);
            }
            if minute < 20 {
                for id in [0, 1] {
                    engine.span(&span(&format!("job-{minute}"), id, at_ms));
                    engine.span(&span("known", id, at_ms));
                }
            }
            engine.finish_batch();
            if minute == 25 {
                // The lasting service, 20 jobs, the known service and the queue.
                assert_eq!(engine.entities.list().len(), 23);
                assert_eq!(engine.spans.families.len(), 42);
            }
        }
        let names: Vec<&str> = engine.entities.list().iter().map(|known| known.entity.name.as_str()).collect();
        assert_eq!(names, ["lasting"]);
        assert!(engine.spans.families.is_empty());
        assert!(engine.signals().all(|(id, _)| id.entity.name == "lasting"));
        engine.span(&span("new", 0, 3000 * 60_000));
        engine.finish_batch();
        assert_eq!(engine.entities.list()[1].entity.name, "new");
        let (_, signal) = engine.signals().next().unwrap();
        assert!(signal.history.len() > 200, "its state is unchanged: {}", signal.history.len());
    }

    #[test]
    fn a_hundred_thousand_entities_that_come_and_go_take_bounded_memory() {
        let mut engine = Engine::new(Config::default(), Catalog::builtin());
        let generations = 10_u32;
        for generation in 0..generations {
            for index in 0..10_000 {
                let service = format!("s{generation}-{index}");
                let labels = Labels::of(&[("__name__", "process_resident_memory_bytes"), ("service", &service)]);
                engine.add_series(&labels, None);
                let sample = Sample { ts_ms: i64::from(generation) * 7_200_000, value: 1.0 };
                engine.observe(SeriesId(index), &[sample]);
            }
            engine.finish_batch();
            // What a checkpoint does with series that are no longer sent.
            engine.renumber(&[false; 10_000]);
        }
        let later = i64::from(generations) * 7_200_000 + 2 * RETENTION_MS;
        engine.add_series(&Labels::of(&[("__name__", "up"), ("service", "last")]), None);
        engine.observe(SeriesId(0), &[Sample { ts_ms: later, value: 1.0 }]);
        engine.finish_batch();
        assert_eq!((engine.size().entities, engine.size().series), (1, 1));
        assert!(engine.size().signals <= 1, "{} signals", engine.size().signals);
    }
}
