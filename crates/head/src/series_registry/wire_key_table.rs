//! Maps the keyed hash of a series' encoded labels to the series id.
//!
//! Problem: a request holds thousands of series, and each hash lookup is a cache miss. Model: senders repeat their
//! series in the same order, so entries are stored in insertion order and the entry after the last hit is compared
//! before the hash index is used. Memory is then read mostly sequentially. 96 bits of the hash identify a series: the
//! hash is keyed with a secret of the process, so a sender cannot construct collisions.

use hashbrown::HashTable;

#[derive(Clone, Copy, Debug)]
struct Entry {
    low: u64,
    high: u32,
    id: u32,
}

impl Entry {
    const fn matches(&self, key: u128) -> bool {
        self.low == key as u64 && self.high == (key >> 64) as u32
    }
}

/// The table, in insertion order with a hash index.
#[derive(Debug, Default)]
pub(crate) struct WireKeyTable {
    entries: Vec<Entry>,
    /// Positions in `entries`, by the low half of the key.
    index: HashTable<u32>,
}

impl WireKeyTable {
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the position of a key. `hint` is the position to compare first: usually the one after the last hit.
    #[inline]
    pub(crate) fn find(&self, key: u128, hint: usize) -> Option<usize> {
        match self.entries.get(hint) {
            Some(entry) if entry.matches(key) => Some(hint),
            _ => self
                .index
                .find(key as u64, |position| self.entries[*position as usize].matches(key))
                .map(|position| *position as usize),
        }
    }

    /// Returns the id at a position.
    pub(crate) fn id(&self, position: usize) -> u32 {
        self.entries[position].id
    }

    /// Adds a key that is not in the table.
    pub(crate) fn push(&mut self, key: u128, id: u32) {
        let position = self.entries.len();
        if position == self.entries.capacity() {
            // Grows by an eighth: doubling would waste up to half of the memory permanently.
            self.entries.reserve_exact(position / 8 + 64);
        }
        self.entries.push(Entry { low: key as u64, high: (key >> 64) as u32, id });
        let entries = &self.entries;
        self.index.insert_unique(key as u64, position as u32, |position| entries[*position as usize].low);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_every_key_whatever_the_hint(keys in prop::collection::vec(0_u128..300, 0..600), hint in 0_usize..400) {
            let (mut table, mut map) = (WireKeyTable::default(), BTreeMap::new());
            // Only seven different low halves, to force collisions in the index.
            let spread = |key: u128| (key << 64) | (key % 7);
            for (key, id) in keys.iter().zip(0_u32..) {
                if !map.contains_key(key) {
                    table.push(spread(*key), id);
                    map.insert(*key, id);
                }
            }
            prop_assert_eq!(table.len(), map.len());
            for key in 0..300_u128 {
                let found = table.find(spread(key), hint).map(|position| table.id(position));
                prop_assert_eq!(found, map.get(&key).copied());
            }
        }
    }
}
