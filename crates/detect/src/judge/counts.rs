//! Rare events of one signal within the last quarter of an hour: restarts, and times it went down.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Time that events are kept, in ms.
const KEPT_MS: i64 = 15 * 60 * 1000;
/// Successes that show how old the newest one usually becomes.
const MIN_DROPS: u32 = 3;
/// Weight of the longest age of the past, per success.
const LONGEST_DECAY: f64 = 0.95;
/// Most events kept.
const MAX_EVENTS: usize = 64;

/// Times and sizes of the newest events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    events: VecDeque<(i64, f64)>,
    was_down: bool,
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

    /// Adds `count` events.
    pub(super) fn add(&mut self, at_ms: i64, count: f64) {
        if count > 0.0 {
            self.events.push_back((at_ms, count));
            if self.events.len() > MAX_EVENTS {
                self.events.pop_front();
            }
        }
    }

    /// Adds an event if something went from up to down.
    pub(super) fn add_state(&mut self, at_ms: i64, is_down: bool) {
        if is_down && !self.was_down {
            self.add(at_ms, 1.0);
        }
        self.was_down = is_down;
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
            counts.add_state(at_ms, is_down);
        }
        assert_eq!(counts.sum(), 2.0);
        counts.advance(KEPT_MS + 1);
        assert_eq!(counts.sum(), 1.0);
        (0..1000).for_each(|at_ms| counts.add(at_ms, 1.0));
        assert_eq!(counts.sum(), MAX_EVENTS as f64);
    }
}
