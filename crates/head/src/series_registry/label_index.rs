//! Inverted index: label name → value → series ids, for selectors.
//!
//! Most values in a large environment belong to one series (a pod name, an address), so the size of one value's entry
//! determines the size of the index. The value's text is not stored again: entries are found by hash, and the text is
//! read from the labels of the first series in the entry.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use wardroom_domain::{Labels, Matcher};

/// The inverted index of one tenant.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    names: BTreeMap<Box<str>, HashTable<Postings>>,
    lists: PostingLists,
    hasher: RandomState,
}

/// The series with one label value: the id itself if there is one series, or with the highest bit set the index of a
/// list. Four bytes, because most values belong to one series and some labels have as many values as there are series.
#[derive(Clone, Copy, Debug)]
struct Postings(u32);

/// Posting lists of the values that several series share: ids ascending, never empty.
#[derive(Debug, Default)]
struct PostingLists(Vec<Vec<u32>>);

const LIST_FLAG: u32 = 1 << 31;

impl PostingLists {
    fn get<'a>(&'a self, Postings(postings): &'a Postings) -> &'a [u32] {
        if postings & LIST_FLAG == 0 {
            std::slice::from_ref(postings)
        } else {
            self.0.get((postings ^ LIST_FLAG) as usize).map_or(&[], Vec::as_slice)
        }
    }

    /// Creates the postings of a new value.
    fn create(&mut self, id: u32) -> Postings {
        if id & LIST_FLAG == 0 { Postings(id) } else { self.list(vec![id]) }
    }

    /// Adds a series to existing postings.
    fn push(&mut self, known: &mut Postings, id: u32) {
        match self.0.get_mut((known.0 ^ LIST_FLAG) as usize) {
            Some(list) if known.0 & LIST_FLAG != 0 => list.push(id),
            _ => *known = self.list(vec![known.0, id]),
        }
    }

    fn list(&mut self, ids: Vec<u32>) -> Postings {
        self.0.push(ids);
        Postings(LIST_FLAG | (self.0.len() - 1) as u32)
    }

    /// Returns the value that these series have under this label name.
    fn text<'a>(&self, postings: &Postings, name: &str, all: &'a [Labels]) -> &'a str {
        let first = self.get(postings).first();
        first.and_then(|id| all.get(*id as usize)).and_then(|labels| labels.get(name)).unwrap_or_default()
    }
}

impl LabelIndex {
    /// Adds the series with this id.
    pub(crate) fn add(&mut self, id: u32, all: &[Labels]) {
        let Some(labels) = all.get(id as usize) else { return };
        let Self { names, lists, hasher } = self;
        for (name, value) in labels.iter() {
            if !names.contains_key(name) {
                names.insert(name.into(), HashTable::new());
            }
            let Some(values) = names.get_mut(name) else { continue };
            let hash = hasher.hash_one(value);
            match values.find_mut(hash, |known| lists.text(known, name, all) == value) {
                Some(known) => lists.push(known, id),
                None => {
                    let postings = lists.create(id);
                    values.insert_unique(hash, postings, |known| hasher.hash_one(lists.text(known, name, all)));
                }
            }
        }
    }

    /// Returns the smallest set of series, ascending, that share the value which a matcher requires; a superset of
    /// those that satisfy all matchers. Returns `None` if no matcher requires one value.
    pub(crate) fn narrowest(&self, matchers: &[Matcher], all: &[Labels]) -> Option<&[u32]> {
        let exact = matchers.iter().filter_map(|matcher| Some(self.find(&matcher.name, matcher.only_value()?, all)));
        exact.min_by_key(|found| found.len())
    }

    fn find(&self, name: &str, value: &str, all: &[Labels]) -> &[u32] {
        let same = |known: &Postings| self.lists.text(known, name, all) == value;
        let found = self.names.get(name).and_then(|values| values.find(self.hasher.hash_one(value), same));
        found.map_or(&[], |known| self.lists.get(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_series_is_stored_inline_and_several_in_a_list() {
        let mut lists = PostingLists::default();
        for first in [0, 5, LIST_FLAG - 1, LIST_FLAG, u32::MAX - 1] {
            let mut postings = lists.create(first);
            assert_eq!(lists.get(&postings), [first]);
            lists.push(&mut postings, u32::MAX);
            assert_eq!(lists.get(&postings), [first, u32::MAX]);
            lists.push(&mut postings, 7);
            assert_eq!(lists.get(&postings), [first, u32::MAX, 7]);
        }
        // Every value has one list, whether or not its first id fitted inline.
        assert_eq!(lists.0.len(), 5);
    }
}
