//! Label name → value → series, for selectors.
//!
//! Most values of a large estate belong to one series (a pod's name, an address), so what a value costs is
//! what the index costs. A value is not stored again: it is found by hash, and its text is that of the first
//! series that carries it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use wardroom_domain::{Labels, Matcher, SeriesId};

/// The inverted index of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: BTreeMap<Box<str>, HashTable<Postings>>,
    hasher: RandomState,
}

/// The series that carry one value, ascending; never none.
#[derive(Debug)]
struct Postings {
    first: u32,
    /// The others, if there are any.
    #[expect(clippy::box_collection, reason = "most values have none, and 16 bytes less each are what counts")]
    more: Option<Box<Vec<u32>>>,
}

impl Postings {
    fn iter(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.first).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }

    fn len(&self) -> usize {
        1 + self.more.as_ref().map_or(0, |more| more.len())
    }
}

impl Index {
    /// Takes the newest of all series in.
    pub(crate) fn add(&mut self, id: u32, all: &[Labels]) {
        let Some(labels) = all.get(id as usize) else { return };
        for (name, value) in labels.iter() {
            if !self.names.contains_key(name) {
                self.names.insert(name.into(), HashTable::new());
            }
            let Some(values) = self.names.get_mut(name) else { continue };
            let hash = self.hasher.hash_one(value);
            match values.find_mut(hash, |known| text(known, name, all) == value) {
                Some(known) => known.more.get_or_insert_default().push(id),
                None => {
                    let hash_of = |known: &Postings| self.hasher.hash_one(text(known, name, all));
                    values.insert_unique(hash, Postings { first: id, more: None }, hash_of);
                }
            }
        }
    }

    /// Series that may meet all matchers, ascending: a superset, as small as one label makes it.
    /// `None` if no label narrows it.
    pub(crate) fn candidates(&self, matchers: &[Matcher], all: &[Labels]) -> Option<Vec<SeriesId>> {
        let exact = matchers.iter().filter_map(|matcher| {
            let value = matcher.only_value()?;
            Some(self.find(&matcher.name, value, all))
        });
        if let Some(narrowest) = exact.min_by_key(|found| found.map_or(0, Postings::len)) {
            return Some(narrowest.into_iter().flat_map(Postings::iter).map(SeriesId).collect());
        }
        // A matcher that does not accept the empty string asks for one of the label's values.
        let present = matchers.iter().find(|matcher| !matcher.accepts(""))?;
        let values = self.names.get(present.name.as_str()).into_iter().flatten();
        let accepted = values.filter(|known| present.accepts(text(known, &present.name, all)));
        let mut ids: Vec<SeriesId> = accepted.flat_map(Postings::iter).map(SeriesId).collect();
        ids.sort_unstable();
        Some(ids)
    }

    fn find(&self, name: &str, value: &str, all: &[Labels]) -> Option<&Postings> {
        self.names.get(name)?.find(self.hasher.hash_one(value), |known| text(known, name, all) == value)
    }
}

/// The value that all series of these postings carry.
fn text<'a>(postings: &Postings, name: &str, all: &'a [Labels]) -> &'a str {
    all.get(postings.first as usize).and_then(|labels| labels.get(name)).unwrap_or_default()
}
