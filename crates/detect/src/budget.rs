//! How much may be said: a false-discovery budget over single points.
//!
//! At |z| > 2.5 one healthy sample in eighty is unusual by chance, so a large estate would fill every list
//! with noise. Model: a threshold that rises a little with everything that is said and falls back with time,
//! so that in the long run as much is said as the budget allows, and always what is farthest out. It runs on
//! the telemetry's own clock, so that a replay says the same.

use serde::{Deserialize, Serialize};

/// What one word raises the threshold by.
const STEP: f64 = 1.05;

/// A rising and falling threshold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Budget {
    per_second: f64,
    /// How many times farther out than the band a point must be.
    level: f64,
    at_ms: i64,
}

impl Budget {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), level: 1.0, at_ms: i64::MAX }
    }

    /// Moves the clock on; it never goes back.
    pub(crate) fn advance(&mut self, now_ms: i64) {
        let seconds = now_ms.saturating_sub(self.at_ms).max(0) as f64 / 1000.0;
        self.level = (self.level * STEP.powf(-seconds * self.per_second)).max(1.0);
        self.at_ms = if self.at_ms == i64::MAX { now_ms } else { self.at_ms.max(now_ms) };
    }

    /// Whether a point this many times farther out than the band may be told.
    pub(crate) fn take(&mut self, times: f64) -> bool {
        let granted = times >= self.level;
        if granted {
            self.level *= STEP;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_held_to_the_budget_and_what_is_far_out_is_told() {
        let mut budget = Budget::new(2);
        let told = |budget: &mut Budget, from: i64| {
            let seconds = (from..from + 100).map(|second| {
                budget.advance(second * 1000);
                (0..50).filter(|at| budget.take(1.0 + f64::from(*at) / 100.0)).count()
            });
            seconds.sum::<usize>()
        };
        assert!((200..230).contains(&told(&mut budget, 0)));
        assert!(budget.take(20.0) && budget.take(20.0));
        assert!((180..230).contains(&told(&mut budget, 100)), "nothing is saved up, nothing is owed for long");
    }

    #[test]
    fn the_clock_never_goes_back() {
        let mut budget = Budget::new(1);
        budget.advance(5_000_000);
        while budget.take(1.2) {}
        budget.advance(4_000_000);
        assert!(!budget.take(1.2));
        budget.advance(5_002_000);
        assert!(budget.take(1.2));
    }
}
