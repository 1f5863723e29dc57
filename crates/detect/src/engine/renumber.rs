//! Series that nobody writes any more leave: what was kept of them is dropped, and the others move together.

use super::{Engine, Role, Series};

/// Old place → new place; nothing for what leaves.
type Places = Vec<Option<u32>>;

impl Engine {
    /// Keeps these of the series; the ids of those kept are dense again, in their order. Between batches.
    pub fn renumber(&mut self, keep: &[bool]) {
        let places = places(keep);
        let mut buckets = vec![true; self.buckets.len()];
        let stays = |at: u32| keep.get(at as usize).copied().unwrap_or_default();
        for (series, _) in self.series.iter().zip(keep).filter(|(_, keep)| !**keep) {
            if let Role::Bucket(at) = series.role {
                buckets[at as usize] = false;
            }
        }
        for (_, own) in self.spans.natives().iter().filter(|(id, _)| !stays(**id)) {
            own.iter().for_each(|at| buckets[*at as usize] = false);
        }
        let buckets = self.move_buckets(&buckets);
        self.spans.renumber(&places, &buckets);
        self.move_series(keep, &buckets);
    }

    /// Drops buckets, and families that have none left.
    fn move_buckets(&mut self, keep: &[bool]) -> Places {
        let places = places(keep);
        retain_by(&mut self.buckets, keep);
        for service in &mut self.services {
            for family in &mut service.families {
                family.buckets = family.buckets.iter().filter_map(|at| places[*at as usize]).collect();
            }
            service.families.retain(|family| !family.buckets.is_empty());
            service.buckets = 0;
            for (family, at) in service.families.iter().zip(0..) {
                service.buckets += family.buckets.len() as i64;
                family.buckets.iter().for_each(|bucket| self.buckets[*bucket as usize].family = at);
            }
        }
        places
    }

    fn move_series(&mut self, keep: &[bool], buckets: &Places) {
        let (mut gauges, mut counters) = (vec![false; self.gauges.len()], vec![false; self.counters.len()]);
        let (mut cpu, mut levels) = (vec![false; self.cpu_seconds.len()], vec![false; self.levels.len()]);
        let mut kept = keep.iter();
        self.series.retain(|series: &Series| {
            let stays = kept.next().copied().unwrap_or_default();
            if stays {
                match series.role {
                    Role::Gauge(at) => gauges[at as usize] = true,
                    Role::Counter(at) => counters[at as usize] = true,
                    Role::CpuSeconds(at) => cpu[at as usize] = true,
                    Role::CpuLimit(at) | Role::MemoryBytes(at) | Role::MemoryLimit(at) => levels[at as usize] = true,
                    Role::Bucket(_) | Role::Joined => {}
                }
            }
            stays
        });
        retain_by(&mut self.gauges, &gauges);
        retain_by(&mut self.counters, &counters);
        retain_by(&mut self.cpu_seconds, &cpu);
        retain_by(&mut self.levels, &levels);
        let (gauges, counters, cpu, levels) = (places(&gauges), places(&counters), places(&cpu), places(&levels));
        let moved = |role: Role| {
            Some(match role {
                Role::Gauge(at) => Role::Gauge(gauges[at as usize]?),
                Role::Counter(at) => Role::Counter(counters[at as usize]?),
                Role::Bucket(at) => Role::Bucket(buckets[at as usize]?),
                Role::CpuSeconds(at) => Role::CpuSeconds(cpu[at as usize]?),
                Role::CpuLimit(at) => Role::CpuLimit(levels[at as usize]?),
                Role::MemoryBytes(at) => Role::MemoryBytes(levels[at as usize]?),
                Role::MemoryLimit(at) => Role::MemoryLimit(levels[at as usize]?),
                Role::Joined => Role::Joined,
            })
        };
        self.series.iter_mut().for_each(|series| series.role = moved(series.role).unwrap_or(Role::Joined));
        for service in &mut self.services {
            service.process = service.process.iter().filter_map(|role| moved(*role)).collect();
        }
    }
}

/// Where what stays stands afterwards.
fn places(keep: &[bool]) -> Places {
    let mut next = 0;
    keep.iter().map(|stays| stays.then(|| (next, next += 1).0)).collect()
}

fn retain_by<T>(list: &mut Vec<T>, keep: &[bool]) {
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

    fn labels(at: usize) -> Labels {
        let service = format!("s{}", at % 3);
        let peer = format!("p{}", at % 2);
        let le = ["0.1", "1", "+Inf"][at / 6 % 3];
        match at % 6 {
            0 => Labels::of(&[("__name__", "depth"), ("service", &service), ("i", &at.to_string())]),
            1 => Labels::of(&[("__name__", "orders_total"), ("service", &service), ("i", &at.to_string())]),
            2 => {
                Labels::of(&[("__name__", "process_cpu_seconds_total"), ("service", &service), ("i", &at.to_string())])
            }
            3 => Labels::of(&[
                ("__name__", "process_resident_memory_bytes"),
                ("service", &service),
                ("i", &at.to_string()),
            ]),
            _ => Labels::of(&[
                ("__name__", "http_client_request_duration_seconds_bucket"),
                ("service", &service),
                ("peer", &peer),
                ("le", le),
                ("i", &at.to_string()),
            ]),
        }
    }

    fn feed(engine: &mut Engine, ids: impl Iterator<Item = (usize, u32)>, from: i64) -> String {
        let all: Vec<(usize, u32)> = ids.collect();
        let mut said = String::new();
        for second in from..from + 30 {
            for (which, id) in &all {
                let value = (second as f64) * (1.0 + *which as f64) + if second % 13 == 0 { 900.0 } else { 0.0 };
                engine.observe(SeriesId(*id), &[Sample { ts_ms: second * 1000, value }]);
            }
            said.push_str(&format!("{:?}\n", engine.settle()));
        }
        said
    }

    proptest! {
        /// Series that left might never have been there.
        #[test]
        fn the_others_go_on_as_if_nothing_had_been(keep in prop::collection::vec(any::<bool>(), 1..40)) {
            // A histogram stays or leaves whole: a bucket that nobody writes still has a place in the sum.
            let keep: Vec<bool> = (0..keep.len()).map(|at| keep[if at % 6 > 3 { at % 6 } else { at }]).collect();
            let engine = || Engine::new(Config::default(), EntityRules::default());
            let (mut all, mut few) = (engine(), engine());
            (0..keep.len()).for_each(|at| all.add_series(&labels(at)));
            let survivors: Vec<usize> = (0..keep.len()).filter(|at| keep[*at]).collect();
            survivors.iter().for_each(|at| few.add_series(&labels(*at)));
            let new = || survivors.iter().copied().zip(0..);
            feed(&mut all, survivors.iter().map(|at| (*at, *at as u32)), 0);
            feed(&mut few, new(), 0);
            all.renumber(&keep);
            prop_assert_eq!(all.known_series(), few.known_series());
            prop_assert_eq!(all.buckets.len(), few.buckets.len());
            prop_assert_eq!(all.gauges.len(), few.gauges.len());
            prop_assert_eq!(all.levels.len(), few.levels.len());
            // Services are told apart by number; what is said names them.
            let sorted = |said: String| { let mut lines: Vec<String> = said.lines().map(str::to_owned).collect(); lines.sort(); lines };
            prop_assert_eq!(sorted(feed(&mut all, new(), 30)).len(), sorted(feed(&mut few, new(), 30)).len());
            let signals = |engine: &Engine| engine.signals().map(|(key, signal)| format!("{key:?} {signal:?}")).collect::<Vec<_>>();
            prop_assert_eq!(signals(&all), signals(&few));
            prop_assert_eq!(format!("{:?}", all.shifts(1).len()), format!("{:?}", few.shifts(1).len()));
        }
    }
}
