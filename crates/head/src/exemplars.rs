//! The newest exemplars of a tenant in a ring buffer, as in Prometheus.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use wardroom_domain::{Exemplar, SeriesId};

/// Maximum length of the labels of an exemplar, in bytes; longer ones are ignored. OpenMetrics allows 128 characters.
const MAX_EXEMPLAR_LABEL_BYTES: usize = 1024;

/// Ring buffer of the newest exemplars.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exemplars {
    capacity: usize,
    ring: VecDeque<(SeriesId, Exemplar)>,
    /// Time and value bits of the newest exemplar of each series: senders repeat it with every scrape.
    newest: BTreeMap<SeriesId, (i64, u64)>,
    /// Number of exemplars evicted from the ring: the position of its first one.
    #[serde(skip)]
    evicted: u64,
}

impl Exemplars {
    /// Creates an empty buffer for at most `capacity` exemplars.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ring: VecDeque::new(), newest: BTreeMap::new(), evicted: 0 }
    }

    /// Adds an exemplar and evicts the oldest if the buffer is full. Ignores one that is equal to the newest of its
    /// series or older, and one with long labels: intake refuses those, but a record is read from the bus as received.
    pub fn push(&mut self, series: SeriesId, exemplar: Exemplar) {
        if exemplar.labels.as_bytes().len() > MAX_EXEMPLAR_LABEL_BYTES {
            return;
        }
        let identity = (exemplar.ts_ms, exemplar.value.to_bits());
        let known = self.newest.get(&series).copied();
        if self.capacity == 0 || known == Some(identity) || known.is_some_and(|(ts_ms, _)| ts_ms > identity.0) {
            return;
        }
        if self.ring.len() >= self.capacity
            && let Some((oldest, evicted)) = self.evict_oldest()
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

    fn evict_oldest(&mut self) -> Option<(SeriesId, Exemplar)> {
        let oldest = self.ring.pop_front()?;
        self.evicted += 1;
        Some(oldest)
    }

    /// Reads up to `limit` exemplars from a position on, and returns those of some series (ascending) within a time
    /// range (both ends in ms, inclusive), in order of arrival, with the position of the next part. Positions start at
    /// 0 and stay valid until the series are renumbered.
    pub fn select_part(
        &self,
        series: &[SeriesId],
        (start_ms, end_ms): (i64, i64),
        from: u64,
        limit: usize,
    ) -> (Vec<(SeriesId, Exemplar)>, Option<u64>) {
        let from = from.max(self.evicted);
        let first = usize::try_from(from - self.evicted).unwrap_or(usize::MAX);
        let part = self.ring.iter().skip(first).take(limit);
        let next = (self.ring.len().saturating_sub(first) > limit).then(|| from + limit as u64);
        let selected = part
            .filter(|(id, exemplar)| (start_ms..=end_ms).contains(&exemplar.ts_ms) && series.binary_search(id).is_ok());
        (selected.cloned().collect(), next)
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
        let all = [SeriesId(1), SeriesId(2), SeriesId(3)];
        let select = |ring: &Exemplars, start_ms: i64, end_ms: i64| {
            let (mut found, mut from) = (Vec::new(), Some(0));
            while let Some(position) = from {
                let (part, next) = ring.select_part(&all, (start_ms, end_ms), position, 2);
                found.extend(part.into_iter().map(|(id, exemplar)| (id.0, exemplar.ts_ms)));
                from = next;
            }
            found
        };
        assert_eq!(select(&ring, 0, 100), [(2, 11), (1, 12), (2, 13)]);
        assert_eq!(select(&ring, 12, 12), [(1, 12)]);
        assert_eq!(ring.select_part(&[SeriesId(1)], (0, 100), 0, 9).0.len(), 1);
        ring.push(SeriesId(1), exemplar(10, 0.5));
        assert_eq!(select(&ring, 10, 10), [], "older than the newest of its series");
        let long = Labels::of(&[("trace_id", &"x".repeat(MAX_EXEMPLAR_LABEL_BYTES))]);
        ring.push(SeriesId(3), Exemplar { labels: long, value: 1.0, ts_ms: 20 });
        assert_eq!(select(&ring, 20, 20), [], "its labels are too long");
    }
}
