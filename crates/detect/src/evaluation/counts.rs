//! Rare events of one signal within the last quarter of an hour: restarts, and times it went down.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Time that events are kept, in ms.
const KEPT_MS: i64 = 15 * 60 * 1000;
/// A longer time without points ends the time without events, in intervals.
const MAX_GAP_INTERVALS: i64 = 3;
/// Successes that show how old the newest one usually becomes.
const MIN_DROPS: u32 = 3;
/// Weight of the longest age of the past, per success.
const LONGEST_DECAY: f64 = 0.95;
/// Most events kept.
const MAX_EVENTS: usize = 64;

/// Times and sizes of the newest events, and how long it was quiet between them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    events: VecDeque<(i64, f64)>,
    was_down: bool,
    was_up: bool,
    /// Begin of the time without an event or a gap up to now, and the longest such time, in ms.
    quiet_since_ms: Option<i64>,
    longest_quiet_ms: i64,
    newest_ms: i64,
    /// Whether what a state shows at first is news: it was looked at before, and was not there.
    expects_events: bool,
    /// Of ages: the newest one, how often it fell, and the longest from which it fell.
    age: f64,
    drops: u32,
    longest: f64,
}

impl Counts {
    /// Forgets what is too old.
    pub(super) fn advance(&mut self, now_ms: i64) {
        while self.events.front().is_some_and(|(at_ms, _)| at_ms + KEPT_MS < now_ms) {
            self.events.pop_front();
        }
    }

    /// Says that there was nothing to count before the first point.
    pub(super) const fn expect_events(&mut self) {
        self.expects_events = true;
    }

    /// Returns how many events a state that stays shows: how far it rose above what it was lately, for points (time in
    /// ms, value) up to the newest one.
    pub(super) fn rise<'a>(&self, mut newest_first: impl Iterator<Item = &'a (i64, f64)>) -> f64 {
        let Some((at_ms, value)) = newest_first.next() else { return 0.0 };
        // A member that reports again after a pause rises above the point before, but not above what was.
        let before = match newest_first.next() {
            Some((_, before)) => {
                let recent = newest_first.take_while(|(earlier_ms, _)| earlier_ms + KEPT_MS >= *at_ms);
                recent.fold(*before, |highest, (_, value)| highest.max(*value))
            }
            None if self.expects_events => 0.0,
            None => *value,
        };
        (value - before).max(0.0)
    }

    /// Adds `count` events, which may be none.
    pub(super) fn add(&mut self, at_ms: i64, count: f64, interval_ms: i64) {
        if count > 0.0 {
            self.events.push_back((at_ms, count));
            if self.events.len() > MAX_EVENTS {
                self.events.pop_front();
            }
        }
        self.add_quiet(at_ms, count <= 0.0, interval_ms);
    }

    /// Adds an event if something went from up to down. What is normally down is not down, but it is not up either: it
    /// becomes no steadier by it.
    pub(super) fn add_state(&mut self, at_ms: i64, is_down: bool, is_any_up: bool, interval_ms: i64) {
        if is_down && !self.was_down {
            self.events.push_back((at_ms, 1.0));
            if self.events.len() > MAX_EVENTS {
                self.events.pop_front();
            }
        }
        self.was_down = is_down;
        self.was_up |= !is_down;
        self.add_quiet(at_ms, !is_down && is_any_up, interval_ms);
    }

    fn add_quiet(&mut self, at_ms: i64, is_quiet: bool, interval_ms: i64) {
        let is_gap = at_ms - self.newest_ms > MAX_GAP_INTERVALS * interval_ms.max(1);
        self.newest_ms = at_ms;
        match self.quiet_since_ms.filter(|_| !is_gap) {
            Some(since_ms) if is_quiet => self.longest_quiet_ms = self.longest_quiet_ms.max(at_ms - since_ms),
            _ => self.quiet_since_ms = is_quiet.then_some(at_ms),
        }
    }

    /// Returns whether it was ever up.
    pub(super) const fn was_up(&self) -> bool {
        self.was_up
    }

    /// Returns the longest time without an event or a gap, in ms.
    pub(super) const fn longest_quiet_ms(&self) -> i64 {
        self.longest_quiet_ms
    }

    /// Returns the time of the first event that is known.
    pub(super) fn first_ms(&self) -> Option<i64> {
        self.events.front().map(|(at_ms, _)| *at_ms)
    }

    /// Returns the number of events since a time.
    pub(super) fn sum_since(&self, since_ms: i64) -> f64 {
        self.events.iter().filter(|(at_ms, _)| *at_ms >= since_ms).map(|(_, count)| count).sum()
    }

    /// Adds an age, which falls with each success.
    pub(super) fn add_age(&mut self, age: f64) {
        if age < self.age {
            self.drops = self.drops.saturating_add(1);
            self.longest = self.age.max(self.longest * LONGEST_DECAY);
        }
        self.age = age;
    }

    /// Returns the longest age from which it fell again, once it has done so a few times.
    pub(super) fn longest_age(&self) -> Option<f64> {
        (self.drops >= MIN_DROPS).then_some(self.longest)
    }

    /// Returns the number of events.
    pub(super) fn sum(&self) -> f64 {
        self.events.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_changes_of_the_last_quarter_of_an_hour() {
        let mut counts = Counts::default();
        for (at_ms, is_down) in [(0, true), (1000, true), (2000, false), (3000, true)] {
            counts.add_state(at_ms, is_down, !is_down, 1000);
        }
        assert_eq!((counts.sum(), counts.sum_since(3000)), (2.0, 1.0));
        counts.advance(KEPT_MS + 1);
        assert_eq!(counts.sum(), 1.0);
        (0..1000).for_each(|at_ms| counts.add(at_ms, 1.0, 1000));
        assert_eq!(counts.sum(), MAX_EVENTS as f64);
    }

    #[test]
    fn a_gap_or_an_event_ends_the_quiet_time() {
        let mut counts = Counts::default();
        for at_ms in [0, 1000, 2000, 3000] {
            counts.add(at_ms, 0.0, 1000);
        }
        counts.add(90_000, 0.0, 1000);
        counts.add(91_000, 1.0, 1000);
        counts.add(92_000, 0.0, 1000);
        assert_eq!(counts.longest_quiet_ms(), 3000);
    }
}
