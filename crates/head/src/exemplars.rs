//! The newest exemplars of a tenant in a ring buffer, as in Prometheus.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use wardroom_domain::{Exemplar, SeriesId};

/// Ring buffer of the newest exemplars.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exemplars {
    capacity: usize,
    ring: VecDeque<(SeriesId, Exemplar)>,
    /// Time and value bits of the newest exemplar of each series: senders repeat it with every scrape.
    newest: BTreeMap<SeriesId, (i64, u64)>,
}

impl Exemplars {
    /// Creates an empty buffer for at most `capacity` exemplars.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ring: VecDeque::new(), newest: BTreeMap::new() }
    }

    /// Adds an exemplar and evicts the oldest if the buffer is full. Ignores one that is equal to the newest of its
    /// series or older.
    pub fn push(&mut self, series: SeriesId, exemplar: Exemplar) {
        let identity = (exemplar.ts_ms, exemplar.value.to_bits());
        let known = self.newest.get(&series).copied();
        if self.capacity == 0 || known == Some(identity) || known.is_some_and(|(ts_ms, _)| ts_ms > identity.0) {
            return;
        }
        if self.ring.len() >= self.capacity
            && let Some((oldest, evicted)) = self.ring.pop_front()
            && self.newest.get(&oldest) == Some(&(evicted.ts_ms, evicted.value.to_bits()))
        {
            self.newest.remove(&oldest);
        }
        self.newest.insert(series, identity);
        self.ring.push_back((series, exemplar));
    }

    /// Renumbers the series: `new_id` returns the new id of a series, or `None` to drop its exemplars.
    pub fn renumber(&mut self, new_id: impl Fn(SeriesId) -> Option<SeriesId>) {
        let ring = std::mem::take(&mut self.ring).into_iter();
        self.ring = ring.filter_map(|(id, exemplar)| Some((new_id(id)?, exemplar))).collect();
        let newest = std::mem::take(&mut self.newest).into_iter();
        self.newest = newest.filter_map(|(id, identity)| Some((new_id(id)?, identity))).collect();
    }

    /// Returns the exemplars of some series within a time range (both ends inclusive), by series, in order of arrival.
    pub fn select(&self, series: &BTreeSet<SeriesId>, start_ms: i64, end_ms: i64) -> Vec<(SeriesId, Vec<Exemplar>)> {
        let mut found: BTreeMap<SeriesId, Vec<Exemplar>> = BTreeMap::new();
        for (id, exemplar) in &self.ring {
            if series.contains(id) && (start_ms..=end_ms).contains(&exemplar.ts_ms) {
                found.entry(*id).or_default().push(exemplar.clone());
            }
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::Labels;

    use super::*;

    fn exemplar(ts_ms: i64, value: f64) -> Exemplar {
        Exemplar { labels: Labels::of(&[("trace_id", "a")]), value, ts_ms }
    }

    #[test]
    fn keeps_the_newest_exemplars_without_duplicates() {
        let mut ring = Exemplars::new(3);
        for (series, ts_ms, value) in
            [(1, 10, 0.5), (1, 10, 0.5), (2, 11, 1.0), (1, 9, 3.0), (1, 12, 0.7), (2, 13, 2.0)]
        {
            ring.push(SeriesId(series), exemplar(ts_ms, value));
        }
        let all = BTreeSet::from([SeriesId(1), SeriesId(2), SeriesId(3)]);
        let found = ring.select(&all, 0, 100);
        let times = |index: usize| found[index].1.iter().map(|exemplar| exemplar.ts_ms).collect::<Vec<_>>();
        assert_eq!((found.len(), times(0), times(1)), (2, vec![12], vec![11, 13]));
        assert_eq!(ring.select(&all, 12, 12).len(), 1);
        ring.push(SeriesId(1), exemplar(10, 0.5));
        assert_eq!(ring.select(&all, 10, 10).len(), 0, "older than the newest of its series");
    }
}
