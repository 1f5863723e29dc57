//! `_bucket` series merged into one histogram (ADR 017).
//!
//! Every bucket series keeps the points of its cumulative increase, corrected for resets, over the last window. Merging
//! sums the increases of all series with the same `le`.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// A cumulative counter over a short window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Increase {
    last: Option<f64>,
    total: f64,
    points: VecDeque<(i64, f64)>,
}

impl Increase {
    /// Adds a reading. `starts_at_zero` says that the series appeared while its histogram was already known, so that
    /// its first value is an increase from 0.
    pub(crate) fn observe(&mut self, at_ms: i64, value: f64, window_ms: i64, starts_at_zero: bool) {
        if value.is_nan() || self.points.back().is_some_and(|(last, _)| *last >= at_ms) {
            return;
        }
        match self.last {
            None if starts_at_zero => {
                self.points.push_back((at_ms - 1, 0.0));
                self.total = value;
            }
            None => {}
            Some(last) if value >= last => self.total += value - last,
            Some(_) => self.total += value,
        }
        self.last = Some(value);
        self.points.push_back((at_ms, self.total));
        while self.points.len() > 2 && self.points.get(1).is_some_and(|(point_ms, _)| *point_ms <= at_ms - window_ms) {
            self.points.pop_front();
        }
    }

    /// Returns the time of the newest reading, in ms.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        self.points.back().map(|(at_ms, _)| *at_ms)
    }

    /// Returns the increase over the window that ends at `at_ms`, and the seconds it covers.
    pub(crate) fn over_window(&self, at_ms: i64, window_ms: i64) -> (f64, f64) {
        let Some((end_ms, end)) = self.points.back().copied() else { return (0.0, 0.0) };
        // An inactive series has no increase.
        if end_ms < at_ms - 3 * window_ms {
            return (0.0, 0.0);
        }
        let before = self.points.iter().rev().find(|(point_ms, _)| *point_ms <= at_ms - window_ms);
        let (start_ms, start) = before.or(self.points.front()).copied().unwrap_or((end_ms, end));
        (end - start, (end_ms - start_ms) as f64 / 1000.0)
    }
}

/// Returns a quantile of merged buckets (upper bound → observations at or below it, in the window). Interpolates
/// inside the bucket as Prometheus' `histogram_quantile` does.
pub(crate) fn quantile(q: f64, buckets: &BTreeMap<Bound, f64>) -> Option<f64> {
    let total = buckets.get(&Bound::INFINITE).copied().filter(|total| *total > 0.0)?;
    let rank = q * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.value().is_infinite() {
                return Some(lower);
            }
            let inside = count - below;
            let share = if inside > 0.0 { (rank - below) / inside } else { 1.0 };
            return Some(lower + (bound.value() - lower) * share);
        }
        (lower, below) = (bound.value(), *count);
    }
    Some(lower)
}

/// The upper bound of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Bound(i64);

impl Bound {
    pub(crate) const INFINITE: Self = Self(i64::MAX);

    /// Parses an `le` label; `None` if it is not a non-negative number.
    pub(crate) fn parse(le: &str) -> Option<Self> {
        match le {
            "+Inf" | "inf" | "Inf" => Some(Self::INFINITE),
            // The bit patterns of non-negative doubles have the order of their values.
            _ => le.parse::<f64>().ok().filter(|bound| *bound >= 0.0).map(Self::new),
        }
    }

    /// Creates a bound from a non-negative number.
    pub(crate) const fn new(bound: f64) -> Self {
        Self(bound.to_bits() as i64)
    }

    fn value(self) -> f64 {
        if self == Self::INFINITE { f64::INFINITY } else { f64::from_bits(self.0 as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_as_prometheus_does() {
        let buckets = [("0.1", 50.0), ("0.2", 90.0), ("0.4", 100.0), ("+Inf", 100.0)];
        let buckets = buckets.map(|(le, count)| (Bound::parse(le).unwrap(), count)).into();
        let p = |q| quantile(q, &buckets).unwrap();
        assert!((p(0.5) - 0.1).abs() < 1e-9);
        assert!((p(0.7) - 0.15).abs() < 1e-9);
        assert!((p(0.99) - 0.38).abs() < 1e-9);
        assert_eq!(quantile(0.9, &BTreeMap::new()), None);
    }

    #[test]
    fn counts_resets_and_new_series_once() {
        let mut counter = Increase::default();
        for (ts_ms, value) in [(0, 100.0), (1000, 110.0), (2000, 4.0), (3000, 9.0)] {
            counter.observe(ts_ms, value, 10_000, false);
        }
        assert_eq!(counter.over_window(3000, 10_000), (19.0, 3.0));
        let mut new = Increase::default();
        new.observe(5000, 7.0, 10_000, true);
        assert!((new.over_window(5000, 10_000).0 - 7.0).abs() < 1e-9);
    }

    #[test]
    fn the_window_slides() {
        let mut counter = Increase::default();
        for second in 0..100 {
            counter.observe(second * 1000, second as f64 * 3.0, 10_000, false);
        }
        assert_eq!(counter.over_window(99_000, 10_000), (30.0, 10.0));
        assert_eq!(counter.over_window(200_000, 10_000), (0.0, 0.0));
    }
}
