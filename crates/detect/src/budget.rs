//! A false-discovery budget: limits how many unusual points are reported per second.
//!
//! At |z| > 2.5 one healthy sample in eighty is unusual by chance, so a million healthy series would fill every list
//! with noise. The budget is a threshold that rises by 5 % with each reported point and decays with time. In the long
//! run it admits the configured rate, and always the most extreme points. It runs on event time, so that a replay
//! reports the same points.

use serde::{Deserialize, Serialize};

/// Factor by which each reported point raises the threshold.
const THRESHOLD_GROWTH_FACTOR: f64 = 1.05;

/// An adaptive threshold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Budget {
    per_second: f64,
    /// Smallest |z| that is admitted, as a multiple of the warning band.
    threshold: f64,
    at_ms: i64,
}

impl Budget {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), threshold: 1.0, at_ms: i64::MAX }
    }

    /// Advances the clock to `now_ms` if that is later than before, and lets the threshold decay.
    pub(crate) fn advance(&mut self, now_ms: i64) {
        let seconds = now_ms.saturating_sub(self.at_ms).max(0) as f64 / 1000.0;
        self.threshold = (self.threshold * THRESHOLD_GROWTH_FACTOR.powf(-seconds * self.per_second)).max(1.0);
        self.at_ms = if self.at_ms == i64::MAX { now_ms } else { self.at_ms.max(now_ms) };
    }

    /// Returns whether a point at `band_ratio` times the warning band is admitted; if so, raises the threshold.
    pub(crate) fn try_spend(&mut self, band_ratio: f64) -> bool {
        let is_admitted = band_ratio >= self.threshold;
        if is_admitted {
            self.threshold *= THRESHOLD_GROWTH_FACTOR;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_noise_at_the_configured_rate_and_every_extreme_point() {
        let mut budget = Budget::new(2);
        let count_admitted = |budget: &mut Budget, from: i64| {
            let seconds = (from..from + 100).map(|second| {
                budget.advance(second * 1000);
                (0..50).filter(|step| budget.try_spend(1.0 + f64::from(*step) / 100.0)).count()
            });
            seconds.sum::<usize>()
        };
        assert!((200..230).contains(&count_admitted(&mut budget, 0)));
        assert!(budget.try_spend(20.0) && budget.try_spend(20.0));
        assert!(
            (180..230).contains(&count_admitted(&mut budget, 100)),
            "neither unused nor overspent budget carries over for long"
        );
    }

    #[test]
    fn the_clock_is_monotonic() {
        let mut budget = Budget::new(1);
        budget.advance(5_000_000);
        while budget.try_spend(1.2) {}
        budget.advance(4_000_000);
        assert!(!budget.try_spend(1.2));
        budget.advance(5_002_000);
        assert!(budget.try_spend(1.2));
    }
}
