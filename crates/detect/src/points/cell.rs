//! One series in one signal: the reading that the last window ended with, and the readings since.

use serde::{Deserialize, Serialize};
use wardroom_domain::sample::is_stale;
use wardroom_signals::Part;

/// Readings that wait for the end of their window; beyond it the second newest is dropped.
const MAX_PENDING: usize = 4096;
/// Capacity of the list of waiting readings that is kept while it is empty.
const MAX_IDLE_CAPACITY: usize = 8;
/// A start time that moves by less is the same start, in s: some exporters compute it from the age of the process.
const MIN_START_CHANGE_SECONDS: f64 = 1.5;
/// The time of a cell without readings.
pub(super) const NEVER: i64 = i64::MIN;

/// One series in one signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cell {
    /// Index of its member.
    pub(super) member: u32,
    /// Index in the table of scales.
    pub(super) scale: u32,
    /// Which number of the signal it is.
    pub(super) part: Part,
    /// Time and value of the last reading of the last window; [`NEVER`] if there is none.
    base_ms: i64,
    base: f64,
    /// Readings since, by time.
    pending: Vec<(i64, f64)>,
    /// The same number for series that differ in the replica of their sender only; 0 without a replica label.
    pub(super) replicas: u32,
    /// A number of the metric's name.
    pub(super) metric: u32,
    /// The replica of the sender; 0 without a replica label.
    pub(super) replica: u32,
    /// Whether each value is an increase already (delta temporality).
    is_delta: bool,
    /// Whether the current window waits for it: it reported in the window before.
    pub(super) is_live: bool,
    /// Whether the current window has its last reading, if it waits for it.
    pub(super) is_settled: bool,
    /// Whether it had a reading in the window before.
    pub(super) has_reported: bool,
    /// Whether the windows so far ended with a stale marker.
    pub(super) has_ended: bool,
}

/// What a cell says about a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Taken {
    /// Whether it had a reading in the window.
    pub(super) reported: bool,
    /// Time of its last reading in the window, in ms.
    pub(super) at_ms: i64,
    /// Increase of a counter.
    pub(super) increase: f64,
    /// Time from the reading before the window to the last one in it, in ms; 0 if there are no two.
    pub(super) covered_ms: i64,
    /// Time and value of the newest reading of a level that has not ended.
    pub(super) level: Option<(i64, f64)>,
}

/// The reading that ends a window for a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) at_ms: i64,
    /// Whether it is a stale marker before the time that a last reading is expected.
    pub(super) is_early_marker: bool,
}

/// Returns whether a part is a counter, so that its increase matters and not its value.
pub(super) const fn is_counter(part: Part) -> bool {
    match part {
        Part::Requests(_)
        | Part::Failures
        | Part::Bucket(..)
        | Part::DurationSum(_)
        | Part::DurationCount(_)
        | Part::Rate
        | Part::IdleRate
        | Part::Count
        | Part::Drained
        | Part::Added => true,
        Part::Quantile(_)
        | Part::Value
        | Part::Limit
        | Part::Free
        | Part::Up
        | Part::Desired
        | Part::Available
        | Part::Time => false,
    }
}

/// Returns whether windows do not wait for a part: limits often come from another exporter at another pace.
pub(super) const fn is_passive(part: Part) -> bool {
    matches!(part, Part::Limit)
}

impl Cell {
    pub(super) const fn new(member: u32, part: Part, scale: u32, is_delta: bool) -> Self {
        Self {
            member,
            scale,
            part,
            base_ms: NEVER,
            base: 0.0,
            pending: Vec::new(),
            replicas: 0,
            metric: 0,
            replica: 0,
            is_delta,
            is_live: false,
            is_settled: false,
            has_reported: false,
            has_ended: false,
        }
    }

    /// Returns the time of the newest reading; [`NEVER`] if there is none.
    #[inline]
    pub(super) fn newest_ms(&self) -> i64 {
        self.pending.last().map_or(self.base_ms, |(at_ms, _)| *at_ms)
    }

    /// Returns the time of the newest reading in a window that is over; [`NEVER`] if there is none.
    pub(super) const fn read_ms(&self) -> i64 {
        self.base_ms
    }

    /// Returns what ends a window for this series: the first reading after `due_ms`, or a stale marker.
    pub(super) fn closing(&self, due_ms: i64) -> Option<Closing> {
        let closes = |reading: &&(i64, f64)| reading.0 > due_ms || is_stale(reading.1);
        let (at_ms, value) = *self.pending.iter().find(closes)?;
        Some(Closing { at_ms, is_early_marker: at_ms <= due_ms && is_stale(value) })
    }

    /// Adds a reading. `due_ms` and `end_ms` are those of the current window. Returns whether it is the newest.
    #[inline]
    pub(super) fn push(&mut self, at_ms: i64, value: f64, due_ms: i64, end_ms: i64) -> bool {
        if is_stale(value) && self.newest_ms() == NEVER {
            // A marker before the first reading ends nothing.
            return false;
        }
        if at_ms <= self.newest_ms() {
            self.insert_late(at_ms, value);
            return false;
        }
        // A reading between two others of the same window changes nothing unless the counter was reset.
        let is_waited_for = self.is_live && !self.is_settled && at_ms <= end_ms;
        match self.pending.last().copied() {
            Some((last_ms, last)) if is_waited_for && last_ms <= due_ms && self.is_between(last, value) => {
                let merged = if self.is_delta { last.max(0.0) + value.max(0.0) } else { value };
                self.pending.pop();
                self.pending.push((at_ms, merged));
            }
            _ => self.pending.push((at_ms, value)),
        }
        if self.pending.len() > MAX_PENDING {
            self.pending.remove(MAX_PENDING - 1);
        }
        true
    }

    /// Returns whether the newest waiting reading can be left out, given the one after it.
    fn is_between(&self, middle: f64, next: f64) -> bool {
        if is_stale(middle) || is_stale(next) {
            return false;
        }
        if self.is_delta {
            return true;
        }
        if !is_counter(self.part) {
            return !matches!(self.part, Part::Time) || middle == next;
        }
        let before = match self.pending.as_slice() {
            [.., before, _] => before.1,
            _ if self.base_ms != NEVER => self.base,
            _ => return false,
        };
        before <= middle && middle <= next
    }

    /// Takes a first reading whose window is over: it counts nothing there. Returns whether that was so.
    pub(super) fn begin_late(&mut self, window_begin_ms: i64) -> bool {
        match self.pending.as_slice() {
            [(at_ms, value)] if self.base_ms == NEVER && is_counter(self.part) && *at_ms <= window_begin_ms => {
                if self.is_delta || !value.is_finite() {
                    return false;
                }
                (self.base_ms, self.base) = (*at_ms, *value);
                self.pending.clear();
                true
            }
            _ => false,
        }
    }

    /// Adds a reading that is not newer than the newest one, unless its window is over for this series.
    #[cold]
    fn insert_late(&mut self, at_ms: i64, value: f64) {
        if at_ms <= self.base_ms || self.pending.len() >= MAX_PENDING {
            return;
        }
        if let Err(index) = self.pending.binary_search_by_key(&at_ms, |(at_ms, _)| *at_ms) {
            self.pending.insert(index, (at_ms, value));
        }
    }

    /// Takes the readings of the window that ends at `end_ms`. The window ends for this series with its first reading
    /// after `due_ms`, so that it need not wait for the next one.
    pub(super) fn take(&mut self, begin_ms: i64, due_ms: i64, end_ms: i64) -> Taken {
        let early = self.pending.partition_point(|(at_ms, _)| *at_ms <= due_ms.min(end_ms));
        let count = early + usize::from(self.pending.get(early).is_some_and(|(at_ms, _)| *at_ms <= end_ms));
        let mut taken = Taken::default();
        let mut from_ms = self.base_ms;
        for (at_ms, value) in self.pending.drain(..count) {
            self.has_ended = is_stale(value);
            if !value.is_finite() {
                continue;
            }
            taken.reported = true;
            if self.is_delta {
                taken.increase += value.max(0.0);
                from_ms = from_ms.max(begin_ms.min(at_ms));
            } else if self.base_ms == NEVER {
                from_ms = at_ms;
            } else if is_counter(self.part) {
                // A counter that is lower than before was reset: it counts from zero.
                taken.increase += if value >= self.base { value - self.base } else { value.max(0.0) };
            } else if value > self.base + MIN_START_CHANGE_SECONDS {
                taken.increase += 1.0;
            }
            (self.base_ms, self.base) = (at_ms, value);
        }
        self.has_reported = taken.reported;
        if taken.reported {
            taken.covered_ms = self.base_ms - from_ms;
            taken.at_ms = self.base_ms;
        }
        if self.base_ms != NEVER && !self.has_ended {
            taken.level = Some((self.base_ms, self.base));
        }
        if self.pending.is_empty() && self.pending.capacity() > MAX_IDLE_CAPACITY {
            self.pending = Vec::new();
        }
        taken
    }

    /// Returns the time of the first reading ever, if no window is over since.
    pub(super) fn first_ms(&self) -> Option<i64> {
        let first = self.pending.iter().find(|(_, value)| !is_stale(*value));
        first.map(|(at_ms, _)| *at_ms).filter(|_| self.base_ms == NEVER)
    }

    /// Returns the time of the oldest reading that waits for the end of its window.
    pub(super) fn oldest_pending_ms(&self) -> Option<i64> {
        self.pending.first().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::sample::STALE_NAN_BITS;
    use wardroom_signals::Outcome;

    use super::*;

    const COUNTER: Part = Part::Requests(Outcome::Ok);

    fn counter() -> Cell {
        Cell::new(0, COUNTER, 0, false)
    }

    /// Prometheus' `increase` without extrapolation: the sum of the differences of consecutive readings, and after a
    /// reset the new value. A first reading counts nothing.
    fn reference(readings: &[(i64, f64)], until_ms: i64) -> f64 {
        let finite: Vec<f64> = readings
            .iter()
            .filter(|(at_ms, value)| *at_ms <= until_ms && value.is_finite())
            .map(|(_, value)| *value)
            .collect();
        finite.windows(2).map(|pair| if pair[1] >= pair[0] { pair[1] - pair[0] } else { pair[1] }).sum()
    }

    proptest! {
        /// Resets, gaps, stale markers, windows of any length, late readings: the increases of the windows add up to
        /// Prometheus' increase.
        #[test]
        fn windows_add_up_to_the_increase_of_prometheus(
            steps in prop::collection::vec((1_i64..40, 0_u32..50, 0_u32..12), 1..60),
            step_ms in 5_i64..60,
            swaps in prop::collection::vec(any::<bool>(), 60),
        ) {
            let (mut at_ms, mut value) = (1000, 500.0);
            let readings: Vec<(i64, f64)> = steps.iter().map(|(gap_ms, more, kind)| {
                at_ms += gap_ms;
                value = if *kind == 0 { f64::from(*more) } else { value + f64::from(*more) };
                (at_ms, if *kind == 1 { f64::from_bits(STALE_NAN_BITS) } else { value })
            }).collect();
            // Neighbours arrive in the other order now and then.
            let mut arrivals = readings.clone();
            for index in (0..arrivals.len().saturating_sub(1)).step_by(2).filter(|index| swaps[*index]) {
                arrivals.swap(index, index + 1);
            }
            let mut cell = counter();
            arrivals.iter().for_each(|(at_ms, value)| { cell.push(*at_ms, *value, NEVER, NEVER); });
            let (mut end_ms, mut total) = (1000, 0.0);
            while end_ms < at_ms + step_ms {
                let taken = cell.take(end_ms - step_ms, end_ms - 1, end_ms);
                total += taken.increase;
                prop_assert_eq!(total, reference(&readings, end_ms));
                end_ms += step_ms;
            }
        }

        /// Readings that are left out because they lie between two others change nothing.
        #[test]
        fn readings_between_two_others_are_left_out(
            increases in prop::collection::vec(0_u32..9, 2..50),
            reset in 0_usize..50,
        ) {
            let (mut all, mut compact, mut value) = (counter(), counter(), 100.0);
            compact.is_live = true;
            for (index, increase) in increases.iter().enumerate() {
                value = if index == reset { 0.0 } else { value + f64::from(*increase) };
                all.push(index as i64 * 1000, value, NEVER, NEVER);
                compact.push(index as i64 * 1000, value, 59_999, 60_000);
            }
            prop_assert!(compact.pending.len() <= 5);
            prop_assert_eq!(all.take(0, 59_999, 60_000), compact.take(0, 59_999, 60_000));
        }
    }

    #[test]
    fn a_window_ends_with_the_first_reading_after_which_the_next_is_due() {
        let mut cell = counter();
        for (at_ms, value) in [(1_000, 10.0), (16_000, 20.0), (29_000, 30.0), (44_000, 40.0)] {
            cell.push(at_ms, value, NEVER, NEVER);
        }
        assert_eq!(cell.take(0, 1_500, 15_000).increase, 0.0);
        let taken = cell.take(15_000, 15_500, 30_000);
        assert_eq!((taken.increase, taken.covered_ms, cell.oldest_pending_ms()), (10.0, 15_000, Some(29_000)));
        let taken = cell.take(30_000, 30_500, 45_000);
        assert_eq!((taken.increase, taken.covered_ms), (20.0, 28_000), "what came early counts in the next window");
    }

    #[test]
    fn a_first_reading_counts_nothing() {
        let mut cell = counter();
        cell.push(10_000, 7.0, NEVER, NEVER);
        assert_eq!(
            cell.take(0, 14_999, 15_000),
            Taken { reported: true, at_ms: 10_000, level: Some((10_000, 7.0)), ..Taken::default() }
        );
    }

    #[test]
    fn deltas_are_increases_and_a_silent_one_counts_nothing() {
        let mut cell = Cell::new(0, COUNTER, 0, true);
        cell.is_live = true;
        cell.push(5_000, 3.0, NEVER, NEVER);
        let taken = cell.take(0, 9_999, 10_000);
        assert_eq!((taken.increase, taken.covered_ms), (3.0, 5_000));
        assert_eq!(cell.take(10_000, 19_999, 20_000).increase, 0.0);
        cell.push(25_000, 2.0, 29_999, 30_000);
        cell.push(28_000, 2.0, 29_999, 30_000);
        let taken = cell.take(20_000, 29_999, 30_000);
        assert_eq!((taken.increase, taken.covered_ms, cell.pending.len()), (4.0, 8_000, 0));
    }
}
