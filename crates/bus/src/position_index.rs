//! Maps offsets to byte positions in segments, so that readers need not scan a segment from its start.
//!
//! Problem: an offset identifies the segment of a record but not its position; a reader that follows the log would scan
//! the segment for every read. Model: the positions where readers stopped are remembered, the most recent ones exactly
//! and one per interval of a segment permanently. A reader that lags behind scans at most one interval.

use std::collections::{BTreeMap, VecDeque};

/// Minimum distance between permanent positions of a segment, in bytes.
const POSITION_INTERVAL_BYTES: u64 = 1 << 20;
/// Maximum number of recent positions.
const MAX_RECENT_POSITIONS: usize = 64;

/// All records of a segment from this position on have at least this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RecentPosition {
    offset: u64,
    segment: u64,
    position: u64,
}

/// Known positions in the segments of a log.
#[derive(Debug, Default)]
pub(crate) struct PositionIndex {
    /// Recent positions, least recently used first.
    recent: VecDeque<RecentPosition>,
    /// (segment, offset) → position, at least [`POSITION_INTERVAL_BYTES`] apart.
    permanent: BTreeMap<(u64, u64), u64>,
}

impl PositionIndex {
    /// Returns the position from which to scan a segment for the first record at or after `offset`.
    pub(crate) fn scan_start(&mut self, segment: u64, offset: u64) -> u64 {
        let permanent_position =
            self.permanent.range((segment, 0)..=(segment, offset)).next_back().map_or(0, |(_, position)| *position);
        let matches = |known: &RecentPosition| known.segment == segment && known.offset <= offset;
        let recent = self.recent.iter().enumerate().filter(|(_, known)| matches(known));
        let Some((index, nearest)) = recent.max_by_key(|(_, known)| known.offset) else { return permanent_position };
        let position = nearest.position.max(permanent_position);
        if let Some(recent) = self.recent.remove(index) {
            self.recent.push_back(recent);
        }
        position
    }

    /// Records that a segment has no record below `offset` from `position` on.
    pub(crate) fn insert(&mut self, segment: u64, offset: u64, position: u64) {
        let before = self.permanent.range((segment, 0)..=(segment, offset)).next_back().map_or(0, |(_, known)| *known);
        let after = self.permanent.range((segment, offset)..=(segment, u64::MAX)).next();
        let after = after.map_or(u64::MAX, |(_, known)| *known);
        if position >= before.saturating_add(POSITION_INTERVAL_BYTES)
            && after >= position.saturating_add(POSITION_INTERVAL_BYTES)
        {
            self.permanent.insert((segment, offset), position);
        }
        let known = RecentPosition { offset, segment, position };
        self.recent.retain(|other| *other != known);
        self.recent.push_back(known);
        if self.recent.len() > MAX_RECENT_POSITIONS {
            self.recent.pop_front();
        }
    }

    /// Removes the positions of all segments before `segment`.
    pub(crate) fn remove_before(&mut self, segment: u64) {
        self.permanent = self.permanent.split_off(&(segment, 0));
        self.recent.retain(|known| known.segment >= segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_position_of_the_segment() {
        let mut index = PositionIndex::default();
        assert_eq!(index.scan_start(0, 7), 0);
        index.insert(0, 5, 500);
        index.insert(0, 9, 900);
        index.insert(10, 12, 200);
        for (segment, offset, position) in
            [(0, 4, 0), (0, 5, 500), (0, 8, 500), (0, 9, 900), (0, 99, 900), (10, 11, 0), (10, 12, 200)]
        {
            assert_eq!(index.scan_start(segment, offset), position, "{segment} {offset}");
            assert_eq!(index.scan_start(segment, offset), position, "a second lookup finds the same");
        }
        index.remove_before(10);
        assert_eq!((index.scan_start(0, 9), index.scan_start(10, 12)), (0, 200));
    }

    /// One reader runs far ahead; a lagging one scans an interval, not the segment.
    #[test]
    fn lagging_reader_scans_at_most_one_interval() {
        let mut index = PositionIndex::default();
        for offset in 0..10_000 {
            index.insert(0, offset, offset * 10_000);
        }
        for offset in [150, 5000, 9000] {
            let position = index.scan_start(0, offset);
            assert!(
                position <= offset * 10_000 && offset * 10_000 - position <= POSITION_INTERVAL_BYTES + 10_000,
                "{offset}: {position}"
            );
        }
        assert!(index.permanent.len() <= 100 && index.recent.len() == MAX_RECENT_POSITIONS);
    }
}
