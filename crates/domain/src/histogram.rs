//! Prometheus native histograms and exemplars.
//!
//! Model: `prompb.Histogram`. Bucket `i` of a standard schema counts observations in
//! `(2^((i-1)·2^-schema), 2^(i·2^-schema)]`; schema −53 has custom bounds.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::sample::is_stale;

/// One sample of a native histogram. Counts are absolute and cumulative over time, not over buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeHistogram {
    /// Time in ms since the epoch.
    pub ts_ms: i64,
    /// Number of observations.
    pub count: f64,
    /// Sum of the observations; its bits are kept unchanged.
    pub sum: f64,
    /// Resolution: −4 to 8, or −53 for custom bounds.
    pub schema: i32,
    /// Upper bound of the absolute value of observations in the zero bucket.
    pub zero_threshold: f64,
    /// Number of observations in the zero bucket.
    pub zero_count: f64,
    /// Positive buckets.
    pub positive: Buckets,
    /// Negative buckets.
    pub negative: Buckets,
    /// Upper bounds of custom buckets; empty for standard schemas.
    pub bounds: Vec<f64>,
    /// `unknown` (0), `yes` (1), `no` (2) or `gauge` (3), as remote_write numbers it.
    pub reset_hint: u8,
}

/// Schema number of histograms with custom bounds.
pub const CUSTOM_BOUNDS_SCHEMA: i32 = -53;

/// The positive or negative buckets of a native histogram: spans of buckets, and a count for each bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Offset from the end of the previous span (first span: index of its first bucket), and number of buckets.
    pub spans: Vec<(i32, u32)>,
    /// Absolute count of each bucket.
    pub counts: Vec<f64>,
}

impl Buckets {
    /// Iterates over bucket indices and counts.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        let mut next = 0_i64;
        let indices = self.spans.iter().flat_map(move |(offset, length)| {
            let first = next + i64::from(*offset);
            next = first + i64::from(*length);
            first..next
        });
        indices.zip(self.counts.iter().copied())
    }

    /// Returns whether the spans are ascending and match the counts, and no count is negative.
    pub fn is_consistent(&self) -> bool {
        let buckets: u64 = self.spans.iter().map(|(_, length)| u64::from(*length)).sum();
        let forward = self.spans.iter().skip(1).all(|(offset, _)| *offset >= 0);
        buckets == self.counts.len() as u64 && forward && self.counts.iter().all(|count| *count >= 0.0)
    }
}

impl NativeHistogram {
    /// Returns the upper bound of the positive bucket with this index.
    pub fn upper_bound(&self, index: i64) -> f64 {
        if self.schema == CUSTOM_BOUNDS_SCHEMA {
            let bound = usize::try_from(index).ok().and_then(|index| self.bounds.get(index));
            return bound.copied().unwrap_or(f64::INFINITY);
        }
        (index as f64 * (-f64::from(self.schema)).exp2()).exp2()
    }

    /// Checks that schema, spans and counts are consistent.
    ///
    /// # Errors
    /// Returns a description of the first violation.
    pub fn validate(&self) -> Result<(), &'static str> {
        let standard = (-4..=8).contains(&self.schema) && self.bounds.is_empty();
        let ascending = self.bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let custom = self.schema == CUSTOM_BOUNDS_SCHEMA && ascending && self.negative.counts.is_empty();
        if !standard && !custom {
            return Err("schema must be -4 to 8, or -53 with ascending bounds and no negative buckets");
        }
        if !self.positive.is_consistent() || !self.negative.is_consistent() {
            return Err("spans and bucket counts do not match, or a count is negative");
        }
        let inside: f64 = self.zero_count + self.positive.counts.iter().chain(&self.negative.counts).sum::<f64>();
        // Observations of NaN are counted but are in no bucket.
        let fits = self.zero_count >= 0.0 && inside <= self.count * (1.0 + 1e-9);
        if !fits && !is_stale(self.sum) {
            return Err("the bucket counts sum to more than count");
        }
        Ok(())
    }
}

/// An example observation, usually linked to a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Its labels, such as `trace_id`.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// Time in ms since the epoch.
    pub ts_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> NativeHistogram {
        NativeHistogram {
            ts_ms: 0,
            count: 6.0,
            sum: 9.0,
            schema: 0,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive: Buckets { spans: vec![(-1, 2), (1, 1)], counts: vec![1.0, 2.0, 2.0] },
            negative: Buckets::default(),
            bounds: Vec::new(),
            reset_hint: 0,
        }
    }

    #[test]
    fn computes_bucket_bounds_from_spans() {
        let histogram = histogram();
        let found: Vec<(f64, f64)> =
            histogram.positive.iter().map(|(index, count)| (histogram.upper_bound(index), count)).collect();
        assert_eq!(found, [(0.5, 1.0), (1.0, 2.0), (4.0, 2.0)]);
        assert_eq!(histogram.validate(), Ok(()));
    }

    #[test]
    fn refuses_inconsistent_histograms() {
        let is_refused = |change: fn(&mut NativeHistogram)| {
            let mut changed = histogram();
            change(&mut changed);
            changed.validate().is_err()
        };
        assert!(is_refused(|histogram| histogram.schema = 9));
        assert!(is_refused(|histogram| histogram.positive.counts.push(1.0)));
        assert!(is_refused(|histogram| histogram.positive.spans[1].0 = -1));
        assert!(is_refused(|histogram| histogram.count = 5.0));
        assert!(is_refused(|histogram| histogram.positive.counts[0] = -1.0));
        assert!(is_refused(|histogram| (histogram.schema, histogram.bounds) = (CUSTOM_BOUNDS_SCHEMA, vec![2.0, 1.0])));
    }
}
