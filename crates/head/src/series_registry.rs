//! The active series of a tenant: label sets and their ids.

mod entities;
mod label_index;
mod selector_filter;
mod wire_key_table;

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use wardroom_domain::{Labels, Matcher, SeriesId};

use crate::config::Config;

use self::entities::Entities;
use self::label_index::LabelIndex;
use self::wire_key_table::WireKeyTable;

pub use self::entities::{EntityLimit, NameLookup, SeriesNames};
pub use self::selector_filter::SelectorFilter;

/// Wire keys stored per series: different senders encode one label set differently.
const WIRE_KEYS_PER_SERIES: usize = 4;

/// The active series of one tenant.
#[derive(Debug)]
pub struct SeriesRegistry {
    config: Config,
    /// Ids by keyed hash of the encoded labels.
    wire_keys: WireKeyTable,
    /// Ids by hash of the labels.
    known: HashTable<u32>,
    hasher: RandomState,
    /// Labels by id.
    series: Vec<Labels>,
    index: LabelIndex,
    entities: Entities,
    /// Size of the encoded labels of all series, in bytes.
    bytes: usize,
    generation: u64,
}

/// Why a series has no id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveError<E> {
    /// Its labels could not be read.
    Labels(E),
    /// The tenant has reached its series limit.
    SeriesLimit,
    /// The labels of the tenant's series have reached their size limit.
    BytesLimit,
    /// The tenant has reached another limit.
    EntityLimit(EntityLimit),
}

impl SeriesRegistry {
    /// Creates an empty registry. `lookup` finds the names that limits count.
    pub fn new(config: Config, lookup: NameLookup) -> Self {
        Self {
            config,
            wire_keys: WireKeyTable::default(),
            known: HashTable::new(),
            hasher: RandomState::new(),
            series: Vec::new(),
            index: LabelIndex::default(),
            entities: Entities::new(lookup),
            bytes: 0,
            generation: 0,
        }
    }

    /// Returns the ids of a request's series, in order, found by the keyed hashes of their encoded labels. `labels` is
    /// called only for a hash seen for the first time. Refused series are listed by position and have the id
    /// [`SeriesRegistry::UNRESOLVED`].
    ///
    /// `enforce_limits` is false on replay: a series accepted once is not refused later.
    pub fn resolve<E>(
        &mut self,
        keys: &[u128],
        enforce_limits: bool,
        mut labels: impl FnMut(usize) -> Result<Labels, E>,
    ) -> (Vec<SeriesId>, Vec<(usize, ResolveError<E>)>) {
        let mut denied = Vec::new();
        let (mut ids, mut next) = (Vec::with_capacity(keys.len()), 0);
        for (index, key) in keys.iter().enumerate() {
            let id = match self.wire_keys.find(*key, next) {
                Some(found) => {
                    next = found + 1;
                    SeriesId(self.wire_keys.id(found))
                }
                None => match labels(index)
                    .map_err(ResolveError::Labels)
                    .and_then(|labels| self.insert(&labels, enforce_limits))
                {
                    Ok(id) => {
                        self.insert_wire_key(*key, id);
                        next = self.wire_keys.len();
                        id
                    }
                    Err(why) => {
                        denied.push((index, why));
                        Self::UNRESOLVED
                    }
                },
            };
            ids.push(id);
        }
        (ids, denied)
    }

    /// Placeholder id of a refused series.
    pub const UNRESOLVED: SeriesId = SeriesId(u32::MAX);

    /// Returns the id of a label set; adds the series if it is new, without checking the limits.
    pub fn get_or_insert(&mut self, labels: &Labels) -> SeriesId {
        self.insert::<()>(labels, false).unwrap_or(Self::UNRESOLVED)
    }

    /// Returns the id of a label set, if the series exists.
    pub fn get(&self, labels: &Labels) -> Option<SeriesId> {
        let hash = self.hasher.hash_one(labels);
        self.known.find(hash, |id| self.series[*id as usize] == *labels).map(|id| SeriesId(*id))
    }

    /// Returns the labels of a series.
    pub fn labels(&self, id: SeriesId) -> Option<&Labels> {
        self.series.get(id.index())
    }

    /// Returns how often the series have been renumbered. Ids are only valid within one generation.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Restores a registry from its series, in order of their ids.
    pub fn load(config: Config, lookup: NameLookup, series: &[Labels], generation: u64) -> Self {
        let mut registry = Self { generation, ..Self::new(config, lookup) };
        for labels in series {
            registry.get_or_insert(labels);
        }
        registry
    }

    /// Returns the labels of all series from this id on.
    pub fn labels_from(&self, id: usize) -> &[Labels] {
        self.series.get(id..).unwrap_or_default()
    }

    /// Returns the series that satisfy all matchers, ascending by id.
    pub fn select(&self, matchers: &[Matcher]) -> Vec<SeriesId> {
        let mut filter = SelectorFilter::new(matchers);
        let mut fits = |id: &SeriesId| self.labels(*id).is_some_and(|labels| filter.matches(labels));
        self.candidates(matchers, SeriesId(0), usize::MAX).into_iter().filter(|id| fits(id)).collect()
    }

    /// Returns up to `limit` series from an id on, ascending, among which are those that satisfy all matchers. Cheap,
    /// whatever the patterns: a caller that shares the registry applies them ([`SelectorFilter`]) without its lock, and
    /// continues after the last id.
    pub fn candidates(&self, matchers: &[Matcher], from: SeriesId, limit: usize) -> Vec<SeriesId> {
        match self.index.narrowest(matchers, &self.series) {
            Some(ids) => {
                let first = ids.partition_point(|id| *id < from.0);
                ids.iter().skip(first).take(limit).map(|id| SeriesId(*id)).collect()
            }
            None => (from.0..self.series.len() as u32).take(limit).map(SeriesId).collect(),
        }
    }

    fn insert<E>(&mut self, labels: &Labels, enforce_limits: bool) -> Result<SeriesId, ResolveError<E>> {
        let hash = self.hasher.hash_one(labels);
        let series = &self.series;
        if let Some(id) = self.known.find(hash, |id| series[*id as usize] == *labels) {
            return Ok(SeriesId(*id));
        }
        if enforce_limits {
            self.check_limits(labels)?;
        }
        let id = self.series.len() as u32;
        self.series.push(labels.clone());
        self.entities.add(labels);
        self.bytes += labels.as_bytes().len();
        self.index.add(id, &self.series);
        let (series, hasher) = (&self.series, &self.hasher);
        self.known.insert_unique(hash, id, |id| hasher.hash_one(&series[*id as usize]));
        Ok(SeriesId(id))
    }

    /// Checks whether a new series is within the limits.
    fn check_limits<E>(&self, labels: &Labels) -> Result<(), ResolveError<E>> {
        if self.series.len() >= self.config.max_series {
            return Err(ResolveError::SeriesLimit);
        }
        if self.bytes.saturating_add(labels.as_bytes().len()) > self.config.max_series_bytes {
            return Err(ResolveError::BytesLimit);
        }
        self.entities.exceeded(labels, &self.config).map_or(Ok(()), |limit| Err(ResolveError::EntityLimit(limit)))
    }

    fn insert_wire_key(&mut self, key: u128, id: SeriesId) {
        // Bounds the table if a sender changes its label order constantly; cleared keys are resolved from labels again.
        if self.wire_keys.len() >= WIRE_KEYS_PER_SERIES * self.series.len().max(1024) {
            self.wire_keys = WireKeyTable::default();
        }
        self.wire_keys.push(key, id.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup() -> NameLookup {
        NameLookup::by_label("service", "peer_service")
    }

    fn registry(max_series: usize) -> SeriesRegistry {
        SeriesRegistry::new(Config { max_series, ..Config::default() }, lookup())
    }

    #[test]
    fn the_limit_counts_series_not_wire_keys_and_labels_are_read_once() {
        let mut registry = registry(1);
        let (first, second) = (Labels::of(&[("a", "1")]), Labels::of(&[("a", "2")]));
        let all = [first.clone(), first.clone(), second.clone(), first];
        let mut reads = 0;
        let (ids, denied) = registry.resolve(&[7, 8, 9, 7], true, |index| {
            reads += 1;
            Ok::<_, ()>(all[index].clone())
        });
        assert_eq!(ids, [SeriesId(0), SeriesId(0), SeriesRegistry::UNRESOLVED, SeriesId(0)]);
        assert_eq!(denied, [(2, ResolveError::SeriesLimit)]);
        assert_eq!((reads, registry.labels_from(0).len()), (3, 1));
        let (ids, denied) = registry.resolve(&[9], false, |_| Ok::<_, ()>(second.clone()));
        assert_eq!((ids, denied.len()), (vec![SeriesId(1)], 0), "a replay accepts series over the limit");
        let (_, denied) = registry.resolve(&[10], true, |_| Err("truncated"));
        assert_eq!(denied, [(0, ResolveError::Labels("truncated"))]);
    }

    #[test]
    fn limits_hold_for_new_series_and_are_counted_again_after_a_load() {
        let config = Config { max_series_bytes: 80, max_services: 2, ..Config::default() };
        let labels = |service: &str| Labels::of(&[("__name__", "depth"), ("service", service)]);
        let all = ["a", "b", "c"].map(labels);
        assert!((20..30).contains(&all[0].as_bytes().len()), "{}", all[0].as_bytes().len());
        let resolve = |registry: &mut SeriesRegistry, all: &[Labels], first_key: u128| {
            let keys: Vec<u128> = (first_key..).take(all.len()).collect();
            registry.resolve(&keys, true, |index| Ok::<_, ()>(all[index].clone())).1
        };
        let refused_service = [(2, ResolveError::EntityLimit(EntityLimit::Services(2)))];
        let mut registry = SeriesRegistry::new(config.clone(), lookup());
        assert_eq!(resolve(&mut registry, &all, 0), refused_service);
        let kept = registry.labels_from(0).to_vec();
        let mut registry = SeriesRegistry::load(config.clone(), lookup(), &kept, 1);
        assert_eq!(resolve(&mut registry, &all, 0), refused_service);
        let more = [Labels::of(&[("__name__", "size"), ("service", "a"), ("unit", "bytes")])];
        assert_eq!(resolve(&mut registry, &more, 10), [(0, ResolveError::BytesLimit)]);
        let mut registry = SeriesRegistry::load(config, lookup(), &kept[1..], 2);
        assert_eq!(resolve(&mut registry, &[labels("c")], 0), [], "the service of an evicted series does not count");
    }

    #[test]
    fn the_wire_key_table_is_bounded() {
        let mut registry = registry(10);
        for key in 0..10_000_u128 {
            let (ids, _) = registry.resolve(&[key], true, |_| Ok::<_, ()>(Labels::of(&[("a", "1")])));
            assert_eq!(ids, [SeriesId(0)]);
        }
        assert!(registry.wire_keys.len() <= WIRE_KEYS_PER_SERIES * 1024);
    }

    proptest! {
        #[test]
        fn select_agrees_with_a_full_scan(pairs in prop::collection::vec((0_u8..4, 0_u8..3), 1..40),
                                              pick in 0_u8..4, negate: bool, pattern: bool) {
            let mut registry = registry(1000);
            for (a, b) in &pairs {
                // A third of the series have no label b.
                let b = if *b == 0 { String::new() } else { format!("w{b}") };
                registry.get_or_insert(&Labels::of(&[("a", &format!("v{a}")), ("b", &b)]));
            }
            for name in ["a", "b", "c"] {
                let value = format!("[vw]{pick}");
                let matcher = if pattern { Matcher::regex(name, value).unwrap() } else { Matcher::equal(name, format!("v{pick}")) };
                let matcher = if negate { matcher.negate() } else { matcher };
                let expected: Vec<SeriesId> = (0..registry.labels_from(0).len() as u32).map(SeriesId)
                    .filter(|id| matcher.matches(registry.labels(*id).unwrap())).collect();
                let matchers = [matcher];
                prop_assert_eq!(&registry.select(&matchers), &expected);
                let (mut parts, mut from) = (Vec::new(), SeriesId(0));
                while let Some(last) = registry.candidates(&matchers, from, 3).last() {
                    let part = registry.candidates(&matchers, from, 3);
                    prop_assert!(part.len() <= 3);
                    let fits = |id: &&SeriesId| matchers[0].matches(registry.labels(**id).unwrap());
                    parts.extend(part.iter().filter(fits).copied());
                    from = SeriesId(last.0 + 1);
                }
                prop_assert_eq!(parts, expected);
            }
        }
    }
}
