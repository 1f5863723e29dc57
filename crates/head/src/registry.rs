//! Who is there: label sets and their ids.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use wardroom_domain::{Labels, Matcher, SeriesId};

use crate::Config;
use crate::index::Index;
use crate::wire::WireTable;

/// Wire keys kept for each series: a sender may write one label set in several ways.
const SPELLINGS: usize = 4;

/// The series of one tenant.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    wire: WireTable,
    known: HashTable<u32>,
    hasher: RandomState,
    series: Vec<Labels>,
    index: Index,
    generation: u64,
}

/// Why a series got no id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied<E> {
    /// Its labels could not be read.
    Labels(E),
    /// It would be one more than the tenant may have.
    Limit,
}

impl Registry {
    /// An empty registry.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            wire: WireTable::default(),
            known: HashTable::new(),
            hasher: RandomState::new(),
            series: Vec::new(),
            index: Index::default(),
            generation: 0,
        }
    }

    /// The ids of a request's series, in order, by the keyed hashes of their bytes. `labels` is asked only
    /// for a hash never seen before. Who got none is listed by position, and stands as [`Registry::NOBODY`].
    ///
    /// `limited` is false on replay: what was let in once stays in.
    pub fn resolve<E>(
        &mut self,
        keys: &[u128],
        limited: bool,
        mut labels: impl FnMut(usize) -> Result<Labels, E>,
    ) -> (Vec<SeriesId>, Vec<(usize, Denied<E>)>) {
        let mut denied = Vec::new();
        let (mut ids, mut next) = (Vec::with_capacity(keys.len()), 0);
        for (at, key) in keys.iter().enumerate() {
            let id = match self.wire.find(*key, next) {
                Some(found) => {
                    next = found + 1;
                    SeriesId(self.wire.id(found))
                }
                None => match labels(at).map_err(Denied::Labels).and_then(|labels| self.admit(&labels, limited)) {
                    Ok(id) => {
                        self.remember(*key, id);
                        next = self.wire.len();
                        id
                    }
                    Err(why) => {
                        denied.push((at, why));
                        Self::NOBODY
                    }
                },
            };
            ids.push(id);
        }
        (ids, denied)
    }

    /// Stands where a series got no id.
    pub const NOBODY: SeriesId = SeriesId(u32::MAX);

    /// The id of a label set, new if need be.
    pub fn id_of(&mut self, labels: &Labels) -> SeriesId {
        self.admit::<()>(labels, false).unwrap_or(Self::NOBODY)
    }

    /// The id of a label set, if it is known.
    pub fn find(&self, labels: &Labels) -> Option<SeriesId> {
        let hash = self.hasher.hash_one(labels);
        self.known.find(hash, |id| self.series[*id as usize] == *labels).map(|id| SeriesId(*id))
    }

    /// The labels of a series.
    pub fn labels(&self, id: SeriesId) -> Option<&Labels> {
        self.series.get(id.index())
    }

    /// How often the series were numbered anew. An id means nothing in another generation.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// These series, in the order of their ids.
    pub fn load(config: Config, series: &[Labels], generation: u64) -> Self {
        let mut registry = Self { generation, ..Self::new(config) };
        for labels in series {
            registry.id_of(labels);
        }
        registry
    }

    /// The series from this id on, for whoever keeps state beside.
    pub fn since(&self, id: usize) -> &[Labels] {
        self.series.get(id..).unwrap_or_default()
    }

    /// The series that meet all matchers, in order of first sight.
    pub fn select(&self, matchers: &[Matcher]) -> Vec<SeriesId> {
        let everyone = || (0..self.series.len() as u32).map(SeriesId).collect();
        let candidates = self.index.candidates(matchers, &self.series).unwrap_or_else(everyone);
        let fits = |id: &SeriesId| {
            self.labels(*id).is_some_and(|labels| matchers.iter().all(|matcher| matcher.matches(labels)))
        };
        candidates.into_iter().filter(fits).collect()
    }

    fn admit<E>(&mut self, labels: &Labels, limited: bool) -> Result<SeriesId, Denied<E>> {
        let hash = self.hasher.hash_one(labels);
        let series = &self.series;
        if let Some(id) = self.known.find(hash, |id| series[*id as usize] == *labels) {
            return Ok(SeriesId(*id));
        }
        if limited && self.series.len() >= self.config.max_series {
            return Err(Denied::Limit);
        }
        let id = self.series.len() as u32;
        self.series.push(labels.clone());
        self.index.add(id, &self.series);
        let (series, hasher) = (&self.series, &self.hasher);
        self.known.insert_unique(hash, id, |id| hasher.hash_one(&series[*id as usize]));
        Ok(SeriesId(id))
    }

    fn remember(&mut self, key: u128, id: SeriesId) {
        // A sender that shuffles its labels must not grow this for ever; whoever is forgotten is read again.
        if self.wire.len() >= SPELLINGS * self.series.len().max(1024) {
            self.wire = WireTable::default();
        }
        self.wire.push(key, id.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn registry(max_series: usize) -> Registry {
        Registry::new(Config { max_series, ..Config::default() })
    }

    #[test]
    fn the_limit_counts_series_not_spellings_and_labels_are_read_once() {
        let mut registry = registry(1);
        let (first, second) = (Labels::of(&[("a", "1")]), Labels::of(&[("a", "2")]));
        let all = [first.clone(), first.clone(), second.clone(), first];
        let mut reads = 0;
        let (ids, denied) = registry.resolve(&[7, 8, 9, 7], true, |at| {
            reads += 1;
            Ok::<_, ()>(all[at].clone())
        });
        assert_eq!(ids, [SeriesId(0), SeriesId(0), Registry::NOBODY, SeriesId(0)]);
        assert_eq!(denied, [(2, Denied::Limit)]);
        assert_eq!((reads, registry.since(0).len()), (3, 1));
        let (ids, denied) = registry.resolve(&[9], false, |_| Ok::<_, ()>(second.clone()));
        assert_eq!((ids, denied.len()), (vec![SeriesId(1)], 0), "a replay takes what was let in");
        let (_, denied) = registry.resolve(&[10], true, |_| Err("torn"));
        assert_eq!(denied, [(0, Denied::Labels("torn"))]);
    }

    #[test]
    fn spellings_do_not_grow_without_end() {
        let mut registry = registry(10);
        for key in 0..10_000_u128 {
            let (ids, _) = registry.resolve(&[key], true, |_| Ok::<_, ()>(Labels::of(&[("a", "1")])));
            assert_eq!(ids, [SeriesId(0)]);
        }
        assert!(registry.wire.len() <= SPELLINGS * 1024);
    }

    proptest! {
        #[test]
        fn selections_agree_with_a_plain_scan(pairs in prop::collection::vec((0_u8..4, 0_u8..3), 1..40),
                                              pick in 0_u8..4, negate: bool, pattern: bool) {
            let mut registry = registry(1000);
            for (a, b) in &pairs {
                // A third of the series lack the label b.
                let b = if *b == 0 { String::new() } else { format!("w{b}") };
                registry.id_of(&Labels::of(&[("a", &format!("v{a}")), ("b", &b)]));
            }
            for name in ["a", "b", "c"] {
                let value = format!("[vw]{pick}");
                let matcher = if pattern { Matcher::regex(name, value).unwrap() } else { Matcher::equal(name, format!("v{pick}")) };
                let matcher = if negate { matcher.negate() } else { matcher };
                let expected: Vec<SeriesId> = (0..registry.since(0).len() as u32).map(SeriesId)
                    .filter(|id| matcher.matches(registry.labels(*id).unwrap())).collect();
                prop_assert_eq!(registry.select(&[matcher]), expected);
            }
        }
    }
}
