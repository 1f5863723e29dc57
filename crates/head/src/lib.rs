//! The live series: label set to dense id, inverted index, and the recent samples of each.
//!
//! ```text
//! labels ──► SeriesId ──► ring of recent (time, value)
//!    └─► index: label pair ─► ids, for SeriesQuery
//! ```
//!
//! Pure: no clock, no I/O. Ids are dense from 0 in order of first sight, so that detectors can keep
//! their state in plain vectors. A label set is compared whole; the hash only finds the bucket. The
//! series limit is asked before anything is appended ([`Head::admits`]), so that a refusal is decided
//! once and stands in the envelope.

mod config;

use std::collections::{BTreeMap, HashMap, VecDeque};

use wardroom_domain::{Labels, Matcher, Sample, query::SeriesQuery};

pub use config::Config;

/// The dense number of a series within its tenant.
pub type SeriesId = usize;

/// The live series of one tenant.
#[derive(Debug, Default)]
pub struct Head {
    config: Config,
    ids: HashMap<Labels, SeriesId>,
    series: Vec<Live>,
    /// Label name → value → ids, ascending.
    index: BTreeMap<String, BTreeMap<String, Vec<SeriesId>>>,
}

#[derive(Debug)]
struct Live {
    labels: Labels,
    recent: VecDeque<Sample>,
}

impl Head {
    /// An empty head.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Whether a series is known or may still be added.
    pub fn admits(&self, labels: &Labels) -> bool {
        self.series.len() < self.config.max_series || self.ids.contains_key(labels)
    }

    /// The id of a label set, and whether it is new.
    pub fn resolve(&mut self, labels: &Labels) -> (SeriesId, bool) {
        if let Some(id) = self.ids.get(labels) {
            return (*id, false);
        }
        let id = self.series.len();
        for (name, value) in labels.iter() {
            self.index.entry(name.to_owned()).or_default().entry(value.to_owned()).or_default().push(id);
        }
        self.ids.insert(labels.clone(), id);
        self.series.push(Live { labels: labels.clone(), recent: VecDeque::new() });
        (id, true)
    }

    /// Adds a sample, keeping order by time and the newest `max-recent-samples`. Of two with one
    /// timestamp the later arrival wins.
    pub fn push(&mut self, id: SeriesId, sample: Sample) {
        let Some(live) = self.series.get_mut(id) else { return };
        let at = live.recent.partition_point(|known| known.ts_ms < sample.ts_ms);
        match live.recent.get_mut(at) {
            Some(known) if known.ts_ms == sample.ts_ms => *known = sample,
            Some(_) => live.recent.insert(at, sample),
            None => live.recent.push_back(sample),
        }
        while live.recent.len() > self.config.max_recent_samples {
            live.recent.pop_front();
        }
    }

    /// The labels of a series.
    pub fn labels(&self, id: SeriesId) -> Option<&Labels> {
        self.series.get(id).map(|live| &live.labels)
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Recent samples that a query selects, by series in order of first sight.
    pub fn query(&self, query: &SeriesQuery) -> Vec<(Labels, Vec<Sample>)> {
        let (start, end) = (query.start.millis(), query.end.millis());
        self.select(&query.matchers)
            .into_iter()
            .filter_map(|id| self.series.get(id))
            .map(|live| {
                let within = live.recent.iter().filter(|sample| (start..=end).contains(&sample.ts_ms));
                (live.labels.clone(), within.copied().collect::<Vec<_>>())
            })
            .filter(|(_, samples)| !samples.is_empty())
            .collect()
    }

    fn select(&self, matchers: &[Matcher]) -> Vec<SeriesId> {
        let postings = |matcher: &Matcher| self.index.get(&matcher.name).and_then(|values| values.get(&matcher.value));
        let mut narrowest: Option<Vec<SeriesId>> = None;
        for matcher in matchers.iter().filter(|matcher| matcher.equal && !matcher.value.is_empty()) {
            let ids = postings(matcher).cloned().unwrap_or_default();
            if narrowest.as_ref().is_none_or(|known| ids.len() < known.len()) {
                narrowest = Some(ids);
            }
        }
        let candidates = narrowest.unwrap_or_else(|| (0..self.series.len()).collect());
        let fits = |id: &SeriesId| {
            self.series.get(*id).is_some_and(|live| matchers.iter().all(|matcher| matcher.matches(&live.labels)))
        };
        candidates.into_iter().filter(fits).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::Timestamp;

    use super::*;

    fn all(matchers: Vec<Matcher>) -> SeriesQuery {
        SeriesQuery { matchers, start: Timestamp::from_millis(0), end: Timestamp::from_millis(1 << 40) }
    }

    #[test]
    fn the_limit_counts_series_not_samples() {
        let mut head = Head::new(Config { max_series: 1, ..Config::default() });
        let (first, second) = (Labels::of(&[("a", "1")]), Labels::of(&[("a", "2")]));
        assert!(head.admits(&first));
        assert_eq!(head.resolve(&first), (0, true));
        assert_eq!(head.resolve(&first), (0, false));
        assert!(head.admits(&first));
        assert!(!head.admits(&second));
    }

    proptest! {
        #[test]
        fn queries_agree_with_a_plain_scan(pairs in prop::collection::vec((0_u8..4, 0_u8..3), 1..40), pick in 0_u8..4) {
            let mut head = Head::new(Config::default());
            for (a, b) in &pairs {
                let labels = Labels::of(&[("a", &format!("v{a}")), ("b", &format!("v{b}"))]);
                let (id, _) = head.resolve(&labels);
                head.push(id, Sample { ts_ms: i64::from(*b), value: f64::from(*a) });
            }
            let matcher = Matcher { name: "a".into(), value: format!("v{pick}"), equal: true };
            let mut expected: Vec<_> = pairs.iter().filter(|(a, _)| *a == pick).collect();
            expected.sort();
            expected.dedup();
            prop_assert_eq!(head.query(&all(vec![matcher])).len(), expected.len());
        }

        #[test]
        fn samples_stay_ordered_whatever_order_they_come_in(times in prop::collection::vec(0_i64..50, 1..80)) {
            let mut head = Head::new(Config { max_recent_samples: 20, ..Config::default() });
            let (id, _) = head.resolve(&Labels::of(&[("a", "1")]));
            for ts_ms in &times {
                head.push(id, Sample { ts_ms: *ts_ms, value: 0.0 });
            }
            let samples = &head.query(&all(vec![Matcher { name: "a".into(), value: "1".into(), equal: true }]))[0].1;
            prop_assert!(samples.windows(2).all(|pair| pair[0].ts_ms < pair[1].ts_ms));
            prop_assert!(samples.len() <= 20);
            prop_assert_eq!(samples.last().map(|s| s.ts_ms), times.iter().max().copied());
        }
    }
}
