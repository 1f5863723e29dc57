//! Where records stand in their segments, so that whoever reads on need not search.
//!
//! Problem: an offset says which segment holds a record, not where in it; whoever follows the log would read the segment
//! from its start for every next record. Model: the places at which readers stopped are remembered, the newest few of them exactly,
//! and one for each stride of a segment for good, so that a reader who comes back late, or a second one, searches one stride at most.

use std::collections::{BTreeMap, VecDeque};

/// Bytes of a segment between two places that stay remembered.
const STRIDE: u64 = 1 << 20;
/// Places that are remembered as they come.
const RECENT: usize = 64;

/// Everything from this position of a segment on has at least this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    offset: u64,
    base: u64,
    position: u64,
}

/// What is known of a log's segments.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The last ones, the one unused longest first.
    recent: VecDeque<Known>,
    /// Segment and offset → position, a stride from each other at least.
    marks: BTreeMap<(u64, u64), u64>,
}

impl Places {
    /// From where a segment must be read for what has this offset or comes after it.
    pub(crate) fn before(&mut self, base: u64, offset: u64) -> u64 {
        let marked = self.marks.range((base, 0)..=(base, offset)).next_back().map_or(0, |(_, position)| *position);
        let fits = |known: &Known| known.base == base && known.offset <= offset;
        let recent = self.recent.iter().enumerate().filter(|(_, known)| fits(known));
        let Some((at, nearest)) = recent.max_by_key(|(_, known)| known.offset) else { return marked };
        let position = nearest.position.max(marked);
        if let Some(used) = self.recent.remove(at) {
            self.recent.push_back(used);
        }
        position
    }

    /// Remembers that a segment has nothing below `offset` from `position` on.
    pub(crate) fn note(&mut self, base: u64, offset: u64, position: u64) {
        let before = self.marks.range((base, 0)..=(base, offset)).next_back().map_or(0, |(_, position)| *position);
        let after =
            self.marks.range((base, offset)..=(base, u64::MAX)).next().map_or(u64::MAX, |(_, position)| *position);
        if position >= before.saturating_add(STRIDE) && after >= position.saturating_add(STRIDE) {
            self.marks.insert((base, offset), position);
        }
        let known = Known { offset, base, position };
        self.recent.retain(|other| *other != known);
        self.recent.push_back(known);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Segments before this one are gone.
    pub(crate) fn forget(&mut self, base: u64) {
        self.marks = self.marks.split_off(&(base, 0));
        self.recent.retain(|known| known.base >= base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_place_before_is_found_in_its_own_segment() {
        let mut places = Places::default();
        assert_eq!(places.before(0, 7), 0);
        places.note(0, 5, 500);
        places.note(0, 9, 900);
        places.note(10, 12, 200);
        for (base, offset, position) in
            [(0, 4, 0), (0, 5, 500), (0, 8, 500), (0, 9, 900), (0, 99, 900), (10, 11, 0), (10, 12, 200)]
        {
            assert_eq!(places.before(base, offset), position, "{base} {offset}");
            assert_eq!(places.before(base, offset), position, "whoever asks second finds the same");
        }
        places.forget(10);
        assert_eq!((places.before(0, 9), places.before(10, 12)), (0, 200));
    }

    /// One reader runs far ahead; the one behind him searches a stride, not the segment.
    #[test]
    fn whoever_falls_behind_searches_a_stride_at_most() {
        let mut places = Places::default();
        for offset in 0..10_000 {
            places.note(0, offset, offset * 10_000);
        }
        for offset in [150, 5000, 9000] {
            let position = places.before(0, offset);
            assert!(
                position <= offset * 10_000 && offset * 10_000 - position <= STRIDE + 10_000,
                "{offset}: {position}"
            );
        }
        assert!(places.marks.len() <= 100 && places.recent.len() == RECENT);
    }
}
