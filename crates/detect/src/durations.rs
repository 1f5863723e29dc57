//! Durations from spans and native histograms, counted in fixed buckets, so that rate, error ratio and p99 are
//! computed the same way as from `_bucket` series (ADR 017).

use serde::{Deserialize, Serialize};
use wardroom_domain::NativeHistogram;

/// Upper bounds in seconds; one more bucket takes longer durations.
pub(crate) const BOUNDS: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0,
    15.0, 30.0, 60.0,
];

/// Observations at or below each bound; the last element counts all.
pub(crate) type Counts = [f64; BOUNDS.len() + 1];

/// Counts of durations per bucket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Durations {
    /// Observations in each bucket, not cumulative.
    bucket_counts: Counts,
}

impl Default for Durations {
    fn default() -> Self {
        Self { bucket_counts: [0.0; BOUNDS.len() + 1] }
    }
}

impl Durations {
    pub(crate) fn add(&mut self, seconds: f64) {
        self.bucket_counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1.0;
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut below = 0.0;
        self.bucket_counts.map(|bucket_counts| {
            below += bucket_counts;
            below
        })
    }
}

/// Converts a native histogram to cumulative counts. `unit` is its unit in seconds; an observation whose native bucket
/// crosses a bound counts as above it.
pub(crate) fn native_histogram_counts(histogram: &NativeHistogram, unit: f64) -> Counts {
    let mut bucket_counts = [0.0; BOUNDS.len() + 1];
    bucket_counts[0] = histogram.zero_count + histogram.negative.counts.iter().sum::<f64>();
    for (index, count) in histogram.positive.iter() {
        let upper = histogram.upper_bound(index) * unit;
        bucket_counts[BOUNDS.partition_point(|bound| *bound < upper)] += count;
    }
    let mut counts = Durations { bucket_counts }.counts();
    counts[BOUNDS.len()] = histogram.count;
    counts
}

#[cfg(test)]
mod tests {
    use wardroom_domain::Buckets;

    use super::*;

    #[test]
    fn counts_durations_at_or_below_their_bound() {
        let mut durations = Durations::default();
        [0.001, 0.0011, 0.3, 100.0].iter().for_each(|seconds| durations.add(*seconds));
        let counts = durations.counts();
        assert_eq!((counts[0], counts[1], counts[10], counts[11]), (1.0, 2.0, 2.0, 3.0));
        assert_eq!((counts[BOUNDS.len() - 1], counts[BOUNDS.len()]), (3.0, 4.0));
    }

    #[test]
    fn converts_a_native_histogram_in_its_unit() {
        let histogram = NativeHistogram {
            ts_ms: 0,
            count: 5.0,
            sum: 0.0,
            schema: 0,
            zero_threshold: 0.0,
            zero_count: 1.0,
            // (64, 128] and (1024, 2048] milliseconds.
            positive: Buckets { spans: vec![(7, 1), (3, 1)], counts: vec![3.0, 1.0] },
            negative: Buckets::default(),
            bounds: Vec::new(),
            reset_hint: 0,
        };
        let counts = native_histogram_counts(&histogram, 0.001);
        let count_at = |seconds: f64| counts[BOUNDS.partition_point(|bound| *bound < seconds)];
        assert_eq!((count_at(0.1), count_at(0.15), count_at(2.5), counts[BOUNDS.len()]), (1.0, 4.0, 5.0, 5.0));
    }
}
