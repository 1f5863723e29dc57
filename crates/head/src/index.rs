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
    names: BTreeMap<Box<str>, HashTable<Carriers>>,
    lists: Lists,
    hasher: RandomState,
}

/// Who carries a value: a series' id if it is one, and with the highest bit set the place of a list. Four bytes, because most
/// values have one carrier, and as many of them as there are series are kept for some labels.
#[derive(Clone, Copy, Debug)]
struct Carriers(u32);

/// The series of each value that more than one carries, ascending; never none.
#[derive(Debug, Default)]
struct Lists(Vec<Vec<u32>>);

const LIST: u32 = 1 << 31;

impl Lists {
    fn get<'a>(&'a self, Carriers(at): &'a Carriers) -> &'a [u32] {
        if at & LIST == 0 {
            std::slice::from_ref(at)
        } else {
            self.0.get((at ^ LIST) as usize).map_or(&[], Vec::as_slice)
        }
    }

    /// One who carries a value that nobody did.
    fn begin(&mut self, id: u32) -> Carriers {
        if id & LIST == 0 { Carriers(id) } else { self.list(vec![id]) }
    }

    /// One more.
    fn push(&mut self, known: &mut Carriers, id: u32) {
        match self.0.get_mut((known.0 ^ LIST) as usize) {
            Some(list) if known.0 & LIST != 0 => list.push(id),
            _ => *known = self.list(vec![known.0, id]),
        }
    }

    fn list(&mut self, ids: Vec<u32>) -> Carriers {
        self.0.push(ids);
        Carriers(LIST | (self.0.len() - 1) as u32)
    }

    /// The value that all of them carry under this name.
    fn text<'a>(&self, carriers: &Carriers, name: &str, all: &'a [Labels]) -> &'a str {
        let first = self.get(carriers).first();
        first.and_then(|id| all.get(*id as usize)).and_then(|labels| labels.get(name)).unwrap_or_default()
    }
}

impl Index {
    /// Takes the newest of all series in.
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
                    let carriers = lists.begin(id);
                    values.insert_unique(hash, carriers, |known| hasher.hash_one(lists.text(known, name, all)));
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
        if let Some(narrowest) = exact.min_by_key(|found| found.len()) {
            return Some(narrowest.iter().copied().map(SeriesId).collect());
        }
        // A matcher that does not accept the empty string asks for one of the label's values.
        let present = matchers.iter().find(|matcher| !matcher.accepts(""))?;
        let values = self.names.get(present.name.as_str()).into_iter().flatten();
        let accepted = values.filter(|known| present.accepts(self.lists.text(known, &present.name, all)));
        let mut ids: Vec<SeriesId> = accepted.flat_map(|known| self.lists.get(known)).copied().map(SeriesId).collect();
        ids.sort_unstable();
        Some(ids)
    }

    fn find(&self, name: &str, value: &str, all: &[Labels]) -> &[u32] {
        let same = |known: &Carriers| self.lists.text(known, name, all) == value;
        let found = self.names.get(name).and_then(|values| values.find(self.hasher.hash_one(value), same));
        found.map_or(&[], |known| self.lists.get(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_carrier_stands_in_place_and_more_of_them_in_a_list() {
        let mut lists = Lists::default();
        for first in [0, 5, LIST - 1, LIST, u32::MAX - 1] {
            let mut carriers = lists.begin(first);
            assert_eq!(lists.get(&carriers), [first]);
            lists.push(&mut carriers, u32::MAX);
            assert_eq!(lists.get(&carriers), [first, u32::MAX]);
            lists.push(&mut carriers, 7);
            assert_eq!(lists.get(&carriers), [first, u32::MAX, 7]);
        }
        // Those that had one carrier in place share the lists with those that did not.
        assert_eq!(lists.0.len(), 5);
    }
}
