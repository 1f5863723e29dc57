//! Keyed hash of a series' bytes on the wire to its id.
//!
//! Problem: a request holds thousands of series, and each lookup is a cache miss. Model: senders write their series
//! again and again in one order, so entries lie in the order of first sight, and the one after the last that was found
//! is looked at before the index is asked: mostly memory is read from front to back. 96 bits of the hash are kept and
//! trusted: the hash is keyed, so that nobody outside can look for two label sets that share it.

use hashbrown::HashTable;

#[derive(Clone, Copy, Debug)]
struct Entry {
    low: u64,
    high: u32,
    id: u32,
}

impl Entry {
    const fn is(&self, key: u128) -> bool {
        self.low == key as u64 && self.high == (key >> 64) as u32
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct WireTable {
    entries: Vec<Entry>,
    /// Places among the entries, by the lower half of the key.
    index: HashTable<u32>,
}

impl WireTable {
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where a key stands: here, if it comes after the one before as it did the first time.
    #[inline]
    pub(crate) fn find(&self, key: u128, here: usize) -> Option<usize> {
        match self.entries.get(here) {
            Some(entry) if entry.is(key) => Some(here),
            _ => self.index.find(key as u64, |at| self.entries[*at as usize].is(key)).map(|at| *at as usize),
        }
    }

    /// The id that stands there.
    pub(crate) fn id(&self, at: usize) -> u32 {
        self.entries[at].id
    }

    /// Adds a key that is not there.
    pub(crate) fn push(&mut self, key: u128, id: u32) {
        let at = self.entries.len();
        if at == self.entries.capacity() {
            // Twice as many would leave half of the room empty, for ever.
            self.entries.reserve_exact(at / 8 + 64);
        }
        self.entries.push(Entry { low: key as u64, high: (key >> 64) as u32, id });
        let entries = &self.entries;
        self.index.insert_unique(key as u64, at as u32, |at| entries[*at as usize].low);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_map_wherever_one_looks_first(keys in prop::collection::vec(0_u128..300, 0..600), here in 0_usize..400) {
            let (mut table, mut map) = (WireTable::default(), BTreeMap::new());
            // Few low bits, so that places are fought over.
            let spread = |key: u128| (key << 64) | (key % 7);
            for (key, id) in keys.iter().zip(0_u32..) {
                if !map.contains_key(key) {
                    table.push(spread(*key), id);
                    map.insert(*key, id);
                }
            }
            prop_assert_eq!(table.len(), map.len());
            for key in 0..300_u128 {
                let found = table.find(spread(key), here).map(|at| table.id(at));
                prop_assert_eq!(found, map.get(&key).copied());
            }
        }
    }
}
