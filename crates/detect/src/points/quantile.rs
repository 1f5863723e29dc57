//! Quantiles of merged buckets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The upper bound of a bucket. Ordered by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Bound(u64);

impl Bound {
    pub(super) const INFINITE: Self = Self::new(f64::INFINITY);

    /// Creates a bound from a number; a negative one counts as 0.
    pub(super) const fn new(bound: f64) -> Self {
        // The bit patterns of non-negative doubles have the order of their values.
        Self(if bound > 0.0 { bound.to_bits() } else { 0 })
    }

    const fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// Returns a quantile of merged buckets (upper bound → observations at or below it, in the window). Interpolates
/// inside the bucket as Prometheus' `histogram_quantile` does.
pub(super) fn quantile(q: f64, buckets: &BTreeMap<Bound, f64>) -> Option<f64> {
    let total = buckets.get(&Bound::INFINITE).copied().filter(|total| *total > 0.0)?;
    let rank = q * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if *bound == Bound::INFINITE {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_as_prometheus_does() {
        let buckets = [(0.1, 50.0), (0.2, 90.0), (0.4, 100.0), (f64::INFINITY, 100.0)];
        let buckets = buckets.map(|(bound, count)| (Bound::new(bound), count)).into();
        let p = |q| quantile(q, &buckets).unwrap();
        assert!((p(0.5) - 0.1).abs() < 1e-9);
        assert!((p(0.7) - 0.15).abs() < 1e-9);
        assert!((p(0.99) - 0.38).abs() < 1e-9);
        assert_eq!(quantile(0.9, &BTreeMap::new()), None);
    }
}
