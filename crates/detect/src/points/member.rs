//! One member of a signal: a process, target, pool or partition that reports all of its series at one pace.

use serde::{Deserialize, Serialize};

use super::cell::NEVER;

/// Readings closer than this are of one scrape or export, in ms.
const SAME_SCRAPE_MS: i64 = 500;
/// Intervals are rounded to a multiple of this, in ms: exporters are late by a few.
const INTERVAL_UNIT_MS: i64 = 500;
/// Intervals that the estimate is the median of: two missed scrapes do not change it.
const GAPS: usize = 5;
/// Scrape times that wait for the end of their window.
const MAX_TIMES: usize = 4096;
/// Another replica of the sender is followed after this time without the one before, in ms.
const MAX_REPLICA_SILENCE_MS: i64 = 120_000;
/// A member is forgotten after this time without readings, in ms, and this many windows.
const MIN_SILENCE_MS: i64 = 300_000;
const MIN_SILENT_WINDOWS: i64 = 5;
/// A member that is late by less than this share of its interval is not missing, in percent.
const NOT_DUE_PERCENT: i64 = 150;

/// One member of a signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    /// Index of its signal group.
    pub(super) group: u32,
    /// Index of the entity whose time its readings move.
    pub(super) entity: u32,
    /// Its name within the group.
    pub(super) name: String,
    /// Its series.
    pub(super) cells: Vec<u32>,
    /// Start of the current window, in ms.
    pub(super) begin_ms: i64,
    /// A reading after this is the last one of the current window, in ms.
    pub(super) due_ms: i64,
    /// End of the current window, in ms.
    pub(super) end_ms: i64,
    /// Live series without a reading after [`Member::due_ms`].
    pub(super) waiting: u32,
    /// Whether the current window waits, or waited, for one of its series.
    pub(super) is_waited_for: bool,
    /// The same for the window before.
    pub(super) was_waited_for: bool,
    /// Whether it is in the list of its group; one that is silent for long is not.
    pub(super) is_listed: bool,
    /// Whether nothing is expected of it: it ended, or is silent for long.
    pub(super) is_gone: bool,
    /// Its newest rate or value, for a window in which no reading was due.
    pub(super) held: Option<f64>,
    /// Time of the newest reading; [`NEVER`] if there is none.
    pub(super) newest_ms: i64,
    /// Time of the newest reading in a window that is over; [`NEVER`] if there is none.
    pub(super) last_ms: i64,
    /// Time of the oldest reading since it was listed; `i64::MAX` if there is none.
    pub(super) oldest_ms: i64,
    /// Times of scrapes since the last window.
    times: Vec<i64>,
    /// Newest scrape of the windows before; [`NEVER`] if there is none.
    last_scrape_ms: i64,
    gaps: Vec<u32>,
    /// Index in `gaps` of the next one.
    next_gap: u8,
    /// Observed interval, in ms; 0 if it is not known.
    pub(super) interval_ms: i64,
    /// The replica of the sender whose readings are used; 0 if there are no replicas.
    pub(super) replica: u32,
}

impl Member {
    pub(super) const fn new(group: u32, entity: u32, name: String) -> Self {
        Self {
            group,
            entity,
            name,
            cells: Vec::new(),
            begin_ms: NEVER,
            due_ms: i64::MAX,
            end_ms: NEVER,
            waiting: 0,
            is_waited_for: false,
            was_waited_for: false,
            is_listed: false,
            is_gone: false,
            held: None,
            newest_ms: NEVER,
            last_ms: NEVER,
            oldest_ms: i64::MAX,
            times: Vec::new(),
            last_scrape_ms: NEVER,
            gaps: Vec::new(),
            next_gap: 0,
            interval_ms: 0,
            replica: 0,
        }
    }

    /// Returns whether readings of a replica are used, and follows it if the one before is silent.
    pub(super) fn follows(&mut self, replica: u32, at_ms: i64) -> bool {
        if self.newest_ms == NEVER || at_ms > self.newest_ms + MAX_REPLICA_SILENCE_MS {
            self.replica = replica;
        }
        self.replica == replica
    }

    /// Records the time of a reading. Returns whether the interval became known by it.
    #[inline]
    pub(super) fn record_time(&mut self, at_ms: i64) -> bool {
        if at_ms == self.newest_ms {
            return false;
        }
        if at_ms < self.newest_ms {
            self.record_late_time(at_ms);
            return false;
        }
        let is_new = self.times.last().is_none_or(|last| at_ms - last >= SAME_SCRAPE_MS);
        if is_new && self.times.len() < MAX_TIMES {
            self.times.push(at_ms);
        }
        self.newest_ms = at_ms;
        self.oldest_ms = self.oldest_ms.min(at_ms);
        is_new && self.times.len() == 2
    }

    #[cold]
    fn record_late_time(&mut self, at_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(at_ms);
        let index = self.times.partition_point(|time| *time < at_ms);
        let is_near = |time: Option<&i64>| time.is_some_and(|time| (time - at_ms).abs() < SAME_SCRAPE_MS);
        let known = is_near(self.times.get(index)) || (index > 0 && is_near(self.times.get(index - 1)));
        if !known && at_ms >= self.last_scrape_ms.saturating_add(SAME_SCRAPE_MS) && self.times.len() < MAX_TIMES {
            self.times.insert(index, at_ms);
        }
    }

    /// Returns the time between its first two scrapes since the last window, rounded; `None` if the second one is not
    /// before `until_ms`.
    pub(super) fn first_gap_ms(&self, until_ms: i64) -> Option<i64> {
        match self.times.as_slice() {
            [first, second, ..] if *second < until_ms => Some(rounded(second - first)),
            _ => None,
        }
    }

    /// Adds the scrapes up to the end of a window to the estimate of the interval.
    pub(super) fn settle_times(&mut self, end_ms: i64) {
        let count = self.times.partition_point(|time| *time <= end_ms);
        for time in self.times.drain(..count) {
            if self.last_scrape_ms != NEVER {
                let gap = u32::try_from(rounded(time - self.last_scrape_ms)).unwrap_or(u32::MAX);
                match self.gaps.get_mut(usize::from(self.next_gap)) {
                    Some(oldest) => *oldest = gap,
                    None => self.gaps.push(gap),
                }
                self.next_gap = (self.next_gap + 1) % GAPS as u8;
            }
            self.last_scrape_ms = time;
        }
        if count > 0 && !self.gaps.is_empty() {
            let mut sorted = self.gaps.clone();
            sorted.sort_unstable();
            self.interval_ms = i64::from(sorted[(sorted.len() - 1) / 2]);
        }
    }

    /// Starts a window.
    pub(super) fn begin_window(&mut self, begin_ms: i64, end_ms: i64) {
        self.begin_ms = begin_ms;
        self.end_ms = end_ms;
        self.due_ms = due_ms(self.interval_ms, end_ms);
    }

    /// Waits for the first window of its group.
    pub(super) fn stop(&mut self) {
        (self.held, self.waiting, self.is_waited_for, self.is_gone) = (None, 0, false, true);
        (self.begin_ms, self.due_ms, self.end_ms) = (NEVER, i64::MAX, NEVER);
        self.oldest_ms = self.times.first().copied().unwrap_or(i64::MAX);
    }

    /// Returns whether it is silent for so long that nothing is expected of it in a window.
    pub(super) fn is_silent(&self, step_ms: i64, end_ms: i64) -> bool {
        self.last_ms < end_ms - MIN_SILENCE_MS.max(MIN_SILENT_WINDOWS * step_ms)
    }

    /// Returns whether no reading was due up to a time: windows and scrapes drift against each other.
    pub(super) fn is_not_due(&self, last_ms: i64, end_ms: i64) -> bool {
        last_ms != NEVER && last_ms + self.interval_ms * NOT_DUE_PERCENT / 100 >= end_ms
    }
}

/// Returns the time after which a reading is the last one of a window that ends at `end_ms`: the next one is due after
/// the end. If it comes earlier nevertheless, it counts in the window after.
pub(super) const fn due_ms(interval_ms: i64, end_ms: i64) -> i64 {
    end_ms - if interval_ms > 0 { interval_ms } else { 1 }
}

/// Rounds an interval; one that is known is never 0.
const fn rounded(gap_ms: i64) -> i64 {
    let units = (gap_ms + INTERVAL_UNIT_MS / 2) / INTERVAL_UNIT_MS;
    if units < 1 { INTERVAL_UNIT_MS } else { units * INTERVAL_UNIT_MS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(times: &[i64]) -> i64 {
        let mut member = Member::new(0, 0, String::new());
        times.iter().for_each(|at_ms| {
            member.record_time(*at_ms);
        });
        member.settle_times(i64::MAX);
        member.interval_ms
    }

    #[test]
    fn the_interval_is_the_median_of_the_newest() {
        assert_eq!(interval(&[0]), 0);
        assert_eq!(interval(&[0, 15_003]), 15_000);
        assert_eq!(interval(&[0, 15_003, 29_990, 45_000, 75_000, 90_000]), 15_000, "one missed scrape");
        assert_eq!(interval(&[0, 15_000, 30_000, 90_000, 150_000, 210_000]), 60_000, "a new pace");
        assert_eq!(interval(&[0, 10, 20, 5_000, 5_010, 10_000]), 5_000, "an export of several readings");
        assert_eq!(interval(&[0, 30_000, 15_000, 45_000, 60_000]), 15_000, "out of order");
    }
}
