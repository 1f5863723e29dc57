//! Eviction of inactive series: drops their state and renumbers the remaining series.

use super::{Engine, Series, SeriesRole};

/// Old index → new index; `None` for evicted entries.
pub(super) type IndexMap = Vec<Option<u32>>;

impl Engine {
    /// Keeps only the marked series and renumbers them densely, in their order. Call between batches.
    pub fn renumber(&mut self, keep: &[bool]) {
        let new_indices = dense_indices(keep);
        let mut buckets = vec![true; self.buckets.len()];
        let is_kept = |index: u32| keep.get(index as usize).copied().unwrap_or_default();
        for (series, _) in self.series.iter().zip(keep).filter(|(_, keep)| !**keep) {
            if let SeriesRole::Bucket(index) = series.role {
                buckets[index as usize] = false;
            }
        }
        for (_, indices) in self.spans.natives.iter().filter(|(id, _)| !is_kept(**id)) {
            indices.iter().for_each(|index| buckets[*index as usize] = false);
        }
        let buckets = self.renumber_buckets(&buckets);
        self.spans.renumber(&new_indices, &buckets);
        self.move_series(keep, &buckets);
    }

    /// Drops buckets, and families without buckets.
    pub(super) fn renumber_buckets(&mut self, keep: &[bool]) -> IndexMap {
        let new_indices = dense_indices(keep);
        retain_by(&mut self.buckets, keep);
        for service in &mut self.services {
            for family in &mut service.families {
                family.buckets = family.buckets.iter().filter_map(|index| new_indices[*index as usize]).collect();
            }
            service.families.retain(|family| !family.buckets.is_empty());
            service.family_ids.clear();
            service.buckets = 0;
            for (family, index) in service.families.iter().zip(0..) {
                service.buckets += family.buckets.len() as i64;
                family.buckets.iter().for_each(|bucket| self.buckets[*bucket as usize].family = index);
            }
        }
        new_indices
    }

    fn move_series(&mut self, keep: &[bool], buckets: &IndexMap) {
        let (mut gauges, mut counters) = (vec![false; self.gauges.len()], vec![false; self.counters.len()]);
        let (mut cpu, mut levels) = (vec![false; self.cpu_seconds.len()], vec![false; self.levels.len()]);
        let mut kept = keep.iter();
        self.series.retain(|series: &Series| {
            let is_kept = kept.next().copied().unwrap_or_default();
            if is_kept {
                match series.role {
                    SeriesRole::Gauge(index) => gauges[index as usize] = true,
                    SeriesRole::Counter(index) => counters[index as usize] = true,
                    SeriesRole::CpuSeconds(index) => cpu[index as usize] = true,
                    SeriesRole::CpuLimit(index) | SeriesRole::MemoryBytes(index) | SeriesRole::MemoryLimit(index) => {
                        levels[index as usize] = true
                    }
                    SeriesRole::Bucket(_) | SeriesRole::Ignored => {}
                }
            }
            is_kept
        });
        retain_by(&mut self.gauges, &gauges);
        retain_by(&mut self.counters, &counters);
        retain_by(&mut self.cpu_seconds, &cpu);
        retain_by(&mut self.levels, &levels);
        let (gauges, counters, cpu, levels) =
            (dense_indices(&gauges), dense_indices(&counters), dense_indices(&cpu), dense_indices(&levels));
        let renumbered = |role: SeriesRole| {
            Some(match role {
                SeriesRole::Gauge(index) => SeriesRole::Gauge(gauges[index as usize]?),
                SeriesRole::Counter(index) => SeriesRole::Counter(counters[index as usize]?),
                SeriesRole::Bucket(index) => SeriesRole::Bucket(buckets[index as usize]?),
                SeriesRole::CpuSeconds(index) => SeriesRole::CpuSeconds(cpu[index as usize]?),
                SeriesRole::CpuLimit(index) => SeriesRole::CpuLimit(levels[index as usize]?),
                SeriesRole::MemoryBytes(index) => SeriesRole::MemoryBytes(levels[index as usize]?),
                SeriesRole::MemoryLimit(index) => SeriesRole::MemoryLimit(levels[index as usize]?),
                SeriesRole::Ignored => SeriesRole::Ignored,
            })
        };
        self.series.iter_mut().for_each(|series| series.role = renumbered(series.role).unwrap_or(SeriesRole::Ignored));
        for service in &mut self.services {
            service.process = service.process.iter().filter_map(|role| renumbered(*role)).collect();
        }
    }
}

/// Returns the new index of every kept entry.
pub(super) fn dense_indices(keep: &[bool]) -> IndexMap {
    let mut next = 0;
    keep.iter().map(|kept| kept.then(|| (next, next += 1).0)).collect()
}

pub(super) fn retain_by<T>(list: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    list.retain(|_| keep.next().copied().unwrap_or_default());
    list.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{EntityRules, Labels, Sample, SeriesId};

    use super::*;
    use crate::Config;

    fn labels(index: usize) -> Labels {
        let service = format!("s{}", index % 3);
        let peer = format!("p{}", index % 2);
        let le = ["0.1", "1", "+Inf"][index / 6 % 3];
        match index % 6 {
            0 => Labels::of(&[("__name__", "depth"), ("service", &service), ("i", &index.to_string())]),
            1 => Labels::of(&[("__name__", "orders_total"), ("service", &service), ("i", &index.to_string())]),
            2 => Labels::of(&[
                ("__name__", "process_cpu_seconds_total"),
                ("service", &service),
                ("i", &index.to_string()),
            ]),
            3 => Labels::of(&[
                ("__name__", "process_resident_memory_bytes"),
                ("service", &service),
                ("i", &index.to_string()),
            ]),
            _ => Labels::of(&[
                ("__name__", "http_client_request_duration_seconds_bucket"),
                ("service", &service),
                ("peer", &peer),
                ("le", le),
                ("i", &index.to_string()),
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
            // A histogram is kept or evicted whole: an inactive bucket still counts in the sum.
            let keep: Vec<bool> = (0..keep.len()).map(|index| keep[if index % 6 > 3 { index % 6 } else { index }]).collect();
            let engine = || Engine::new(Config::default(), EntityRules::default());
            let (mut all, mut only_kept) = (engine(), engine());
            (0..keep.len()).for_each(|index| all.add_series(&labels(index)));
            let kept_indices: Vec<usize> = (0..keep.len()).filter(|index| keep[*index]).collect();
            kept_indices.iter().for_each(|index| only_kept.add_series(&labels(*index)));
            let new = || kept_indices.iter().copied().zip(0..);
            observe_and_report(&mut all, kept_indices.iter().map(|index| (*index, *index as u32)), 0);
            observe_and_report(&mut only_kept, new(), 0);
            all.renumber(&keep);
            prop_assert_eq!(all.known_series(), only_kept.known_series());
            prop_assert_eq!(all.buckets.len(), only_kept.buckets.len());
            prop_assert_eq!(all.gauges.len(), only_kept.gauges.len());
            prop_assert_eq!(all.levels.len(), only_kept.levels.len());
            prop_assert_eq!(observe_and_report(&mut all, new(), 30), observe_and_report(&mut only_kept, new(), 30));
            let signals = |engine: &Engine| {
                engine.signals().map(|(key, signal)| format!("{key:?} {signal:?}")).collect::<Vec<_>>()
            };
            prop_assert_eq!(signals(&all), signals(&only_kept));
            prop_assert_eq!(format!("{:?}", all.level_shifts(1, |_| true).len()), format!("{:?}", only_kept.level_shifts(1, |_| true).len()));
        }
    }
}
