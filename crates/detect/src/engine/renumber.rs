//! Eviction of inactive series: drops their state and renumbers the remaining series.

use super::dense_indices::{dense_indices, retain_by};
use super::series::{NOT_WATCHED, Series, SeriesRole};
use super::state::Engine;
use crate::points::PartHandle;

impl Engine {
    /// Keeps only the marked series and renumbers them densely, in their order. Call between batches.
    pub fn renumber(&mut self, keep: &[bool]) {
        let new_indices = dense_indices(keep);
        let new_id = |id: u32| new_indices.get(id as usize).copied().flatten();
        let mut removed = self.spans.renumber_series(new_id);
        self.move_parts(keep, &mut removed);
        self.points.remove_series(&removed);
        self.feeds.clear();
        self.move_series(keep);
    }

    /// Keeps the parts of the marked series, in their order; adds the others to `removed`.
    fn move_parts(&mut self, keep: &[bool], removed: &mut Vec<PartHandle>) {
        let mut parts = Vec::new();
        for (series, is_kept) in self.series.iter_mut().zip(keep) {
            let first = series.usage.first_part as usize;
            let own = &self.parts[first..first + usize::from(series.usage.parts)];
            if *is_kept {
                series.usage.first_part = parts.len() as u32;
                parts.extend_from_slice(own);
            } else {
                removed.extend_from_slice(own);
            }
        }
        self.parts = parts;
    }

    fn move_series(&mut self, keep: &[bool]) {
        let (mut gauges, mut counters) = (vec![false; self.gauges.len()], vec![false; self.counters.len()]);
        let mut watches = vec![false; self.inferred.len()];
        let mut kept = keep.iter();
        self.series.retain(|series: &Series| {
            let is_kept = kept.next().copied().unwrap_or_default();
            if is_kept {
                match series.usage.role {
                    SeriesRole::Gauge(index) => gauges[index as usize] = true,
                    SeriesRole::Counter(index) => counters[index as usize] = true,
                    SeriesRole::None => {}
                }
                if series.usage.watch != NOT_WATCHED {
                    watches[series.usage.watch as usize] = true;
                }
            }
            is_kept
        });
        self.series.shrink_to_fit();
        retain_by(&mut self.gauges, &gauges);
        retain_by(&mut self.counters, &counters);
        self.inferred.renumber(&watches);
        let (gauges, counters, watches) = (dense_indices(&gauges), dense_indices(&counters), dense_indices(&watches));
        for series in &mut self.series {
            let usage = &mut series.usage;
            let role = match usage.role {
                SeriesRole::Gauge(index) => gauges[index as usize].map(SeriesRole::Gauge),
                SeriesRole::Counter(index) => counters[index as usize].map(SeriesRole::Counter),
                SeriesRole::None => None,
            };
            usage.role = role.unwrap_or(SeriesRole::None);
            usage.watch = watches.get(usage.watch as usize).copied().flatten().unwrap_or(NOT_WATCHED);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{Labels, Sample, SeriesId};
    use wardroom_signals::Catalog;

    use super::*;
    use crate::Config;

    /// Kinds of series; the last is a bucket of a histogram.
    const KINDS: usize = 6;

    fn labels(index: usize) -> Labels {
        let (service, number) = (format!("s{}", index % 3), index.to_string());
        let le = ["0.1", "1", "+Inf"][index / KINDS % 3];
        let own = |name: &str| Labels::of(&[("__name__", name), ("service", &service), ("i", &number)]);
        match index % KINDS {
            0 => own("depth"),
            1 => own("orders_total"),
            2 => own("process_cpu_seconds_total"),
            3 => own("process_resident_memory_bytes"),
            4 => Labels::of(&[("__name__", "app_build_info"), ("service", &service), ("version", &number)]),
            _ => Labels::of(&[
                ("__name__", "http_client_request_duration_seconds_bucket"),
                ("service", &service),
                ("le", le),
                ("i", &number),
            ]),
        }
    }

    fn observe_and_report(engine: &mut Engine, ids: impl Iterator<Item = (usize, u32)>, from: i64) -> String {
        let all: Vec<(usize, u32)> = ids.collect();
        let mut reported = String::new();
        for second in from..from + 30 {
            for (index, id) in &all {
                let value = (second as f64) * (1.0 + *index as f64) + if second % 13 == 0 { 900.0 } else { 0.0 };
                engine.observe(SeriesId(*id), &[Sample { ts_ms: second * 1000, value }]);
            }
            reported.push_str(&format!("{:?}\n", engine.finish_batch()));
        }
        reported
    }

    proptest! {
        /// After eviction the engine behaves like one that never had the evicted series.
        #[test]
        fn eviction_equals_never_having_had_the_series(keep in prop::collection::vec(any::<bool>(), 1..40)) {
            // What shares a signal is kept or evicted whole: its members count until they are dead.
            let keep: Vec<bool> = (0..keep.len())
                .map(|index| keep[if index % KINDS >= 2 { index % KINDS % keep.len() } else { index }])
                .collect();
            let engine = || Engine::new(Config::default(), Catalog::builtin());
            let (mut all, mut only_kept) = (engine(), engine());
            (0..keep.len()).for_each(|index| all.add_series(&labels(index), None));
            let kept_indices: Vec<usize> = (0..keep.len()).filter(|index| keep[*index]).collect();
            kept_indices.iter().for_each(|index| only_kept.add_series(&labels(*index), None));
            let new = || kept_indices.iter().copied().zip(0..);
            observe_and_report(&mut all, kept_indices.iter().map(|index| (*index, *index as u32)), 0);
            observe_and_report(&mut only_kept, new(), 0);
            all.renumber(&keep);
            prop_assert_eq!(all.known_series(), only_kept.known_series());
            prop_assert_eq!(all.gauges.len(), only_kept.gauges.len());
            prop_assert_eq!(all.counters.len(), only_kept.counters.len());
            prop_assert_eq!(all.parts.len(), only_kept.parts.len());
            prop_assert_eq!(all.inferred.len(), only_kept.inferred.len());
            prop_assert_eq!(observe_and_report(&mut all, new(), 30), observe_and_report(&mut only_kept, new(), 30));
            let signals = |engine: &Engine| {
                engine.signals().map(|(id, signal)| format!("{id:?} {signal:?}")).collect::<Vec<_>>()
            };
            prop_assert_eq!(signals(&all), signals(&only_kept));
            let shifts = |engine: &Engine| engine.level_shifts(1, |_| true).len();
            prop_assert_eq!(shifts(&all), shifts(&only_kept));
        }
    }
}
