//! Cursors of paged sample queries, packed into 64 bits.
//!
//! The top bits say what the rest counts: series in memory, series in the tables, minutes of native histograms in the
//! tables, or, without a mark, offsets of the bus. Cursors into the tables also carry the low bits of the tables'
//! committed offset at the first page, so that all pages see the same rows.

/// Marks a cursor over series in memory: generation of the ids (31 bits), then the next id (32 bits).
const LIVE_SERIES: u64 = 1 << 63;
/// Marks a cursor over series in the tables: the next series id, then the low bits of the offset.
const LAKE_SERIES: u64 = 1 << 62;
/// Marks a cursor over native histograms in the tables: the next minute, then the low bits of the offset.
const LAKE_HISTOGRAMS: u64 = 1 << 61;
/// Low bits of the committed offset in a cursor into the tables.
const OFFSET_BITS: u32 = 30;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

/// Returns whether a query starts at the beginning or continues in memory.
pub(super) const fn starts_in_memory(cursor: u64) -> bool {
    cursor == 0 || cursor & LIVE_SERIES != 0
}

/// Returns whether a query continues in the tables.
pub(super) const fn is_in_lake(cursor: u64) -> bool {
    cursor & (LAKE_SERIES | LAKE_HISTOGRAMS) != 0
}

/// Returns whether a query continues with the native histograms in the tables.
pub(super) const fn is_in_lake_histograms(cursor: u64) -> bool {
    cursor & LAKE_HISTOGRAMS != 0
}

/// Cursor of the next page in memory.
pub(super) const fn live_series(generation: u64, next_id: u32) -> u64 {
    LIVE_SERIES | generation_bits(generation) | next_id as u64
}

/// Returns the id that a cursor in memory continues with.
pub(super) const fn live_series_id(cursor: u64) -> u64 {
    cursor & u32::MAX as u64
}

/// Returns whether the ids of a cursor in memory are of this generation.
pub(super) const fn is_of_generation(cursor: u64, generation: u64) -> bool {
    cursor == 0 || cursor & !LIVE_SERIES & !(u32::MAX as u64) == generation_bits(generation)
}

const fn generation_bits(generation: u64) -> u64 {
    (generation << 32) & !LIVE_SERIES
}

/// Cursor of the next page of samples in the tables, which are read up to the offset `before`.
pub(super) const fn lake_series(next_id: u64, before: u64) -> u64 {
    LAKE_SERIES | next_id << OFFSET_BITS | before & OFFSET_MASK
}

/// Cursor of the next page of native histograms in the tables, which are read up to the offset `before`.
pub(super) const fn lake_histograms(next_minute: u64, before: u64) -> u64 {
    LAKE_HISTOGRAMS | next_minute << OFFSET_BITS | before & OFFSET_MASK
}

/// Returns the series id or minute that a cursor into the tables continues with.
pub(super) const fn lake_position(cursor: u64) -> u64 {
    (cursor & !(LAKE_SERIES | LAKE_HISTOGRAMS)) >> OFFSET_BITS
}

/// Restores the offset `before` of a cursor into the tables, given that the committed offset has advanced by less than
/// 2^[`OFFSET_BITS`] since.
pub(super) const fn lake_end(cursor: u64, committed: u64) -> u64 {
    let end = (committed & !OFFSET_MASK) | (cursor & OFFSET_MASK);
    if end > committed { end - OFFSET_MASK - 1 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip() {
        let cursor = live_series(5, 77);
        assert!(starts_in_memory(cursor) && !is_in_lake(cursor) && live_series_id(cursor) == 77);
        assert!(is_of_generation(cursor, 5) && !is_of_generation(cursor, 6));
        let committed = (3 << OFFSET_BITS) + 9;
        let cursor = lake_series(123, committed);
        assert!(is_in_lake(cursor) && !is_in_lake_histograms(cursor) && !starts_in_memory(cursor));
        assert_eq!((lake_position(cursor), lake_end(cursor, committed)), (123, committed));
        let cursor = lake_histograms(29_920_917, committed);
        assert!(is_in_lake(cursor) && is_in_lake_histograms(cursor));
        assert_eq!((lake_position(cursor), lake_end(cursor, committed + 1000)), (29_920_917, committed));
    }

    #[test]
    fn restores_an_offset_whose_low_bits_are_above_those_of_the_committed_offset() {
        let cursor = lake_series(1, (1 << OFFSET_BITS) - 1);
        assert_eq!(lake_end(cursor, (1 << OFFSET_BITS) + 5), (1 << OFFSET_BITS) - 1);
    }
}
