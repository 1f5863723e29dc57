//! Native histograms and exemplars, as Prometheus has them.
//!
//! Model: `prompb.Histogram`. Bucket `i` of a standard schema holds what lies in
//! `(2^((i-1)·2^-schema), 2^(i·2^-schema)]`; schema −53 has its own bounds.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// One reading of a native histogram. Counts are absolute and cumulative over time, not over buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeHistogram {
    /// Milliseconds since the epoch.
    pub ts_ms: i64,
    /// Observations.
    pub count: f64,
    /// Their sum; its bits are kept as they came.
    pub sum: f64,
    /// Resolution: −4 to 8, or −53 for custom bounds.
    pub schema: i32,
    /// Observations this near to zero are in the zero bucket.
    pub zero_threshold: f64,
    /// How many those are.
    pub zero_count: f64,
    /// Buckets above zero.
    pub positive: Buckets,
    /// Buckets below zero.
    pub negative: Buckets,
    /// Upper bounds of custom buckets; empty for standard schemas.
    pub bounds: Vec<f64>,
    /// `unknown` (0), `yes` (1), `no` (2) or `gauge` (3), as remote_write numbers it.
    pub reset_hint: u8,
}

/// The custom schema.
pub const CUSTOM_BOUNDS: i32 = -53;

/// One side of a native histogram: stretches of buckets, and a count for each bucket in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// (distance to the end of the stretch before, or the first index; number of buckets).
    pub spans: Vec<(i32, u32)>,
    /// Absolute counts, bucket by bucket.
    pub counts: Vec<f64>,
}

impl Buckets {
    /// Each bucket's index with its count.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        let mut next = 0_i64;
        let indices = self.spans.iter().flat_map(move |(offset, length)| {
            let first = next + i64::from(*offset);
            next = first + i64::from(*length);
            first..next
        });
        indices.zip(self.counts.iter().copied())
    }

    /// Whether every count has its place, and every place its count.
    pub fn consistent(&self) -> bool {
        let places: u64 = self.spans.iter().map(|(_, length)| u64::from(*length)).sum();
        let forward = self.spans.iter().skip(1).all(|(offset, _)| *offset >= 0);
        places == self.counts.len() as u64 && forward && self.counts.iter().all(|count| *count >= 0.0)
    }
}

impl NativeHistogram {
    /// The upper bound of the positive bucket with this index.
    pub fn upper_bound(&self, index: i64) -> f64 {
        if self.schema == CUSTOM_BOUNDS {
            let bound = usize::try_from(index).ok().and_then(|index| self.bounds.get(index));
            return bound.copied().unwrap_or(f64::INFINITY);
        }
        (index as f64 * (-f64::from(self.schema)).exp2()).exp2()
    }

    /// Whether its parts fit together; what does not is refused.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let standard = (-4..=8).contains(&self.schema) && self.bounds.is_empty();
        let ascending = self.bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let custom = self.schema == CUSTOM_BOUNDS && ascending && self.negative.counts.is_empty();
        if !standard && !custom {
            return Err("schema must be -4 to 8, or -53 with ascending bounds and no negative buckets");
        }
        if !self.positive.consistent() || !self.negative.consistent() {
            return Err("spans and bucket counts do not fit together, or a count is negative");
        }
        let inside: f64 = self.zero_count + self.positive.counts.iter().chain(&self.negative.counts).sum::<f64>();
        // Observations of NaN are counted and lie in no bucket.
        let fits = self.zero_count >= 0.0 && inside <= self.count * (1.0 + 1e-9);
        if !fits && !crate::batch::is_stale(self.sum) {
            return Err("the buckets hold more than count says");
        }
        Ok(())
    }
}

/// A single observation that stands for others: usually one with a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// What names it: `trace_id` and the like.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// Milliseconds since the epoch.
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
    fn buckets_stand_where_the_spans_say() {
        let histogram = histogram();
        let found: Vec<(f64, f64)> =
            histogram.positive.iter().map(|(index, count)| (histogram.upper_bound(index), count)).collect();
        assert_eq!(found, [(0.5, 1.0), (1.0, 2.0), (4.0, 2.0)]);
        assert_eq!(histogram.check(), Ok(()));
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let bend = |bend: fn(&mut NativeHistogram)| {
            let mut bent = histogram();
            bend(&mut bent);
            bent.check().is_err()
        };
        assert!(bend(|histogram| histogram.schema = 9));
        assert!(bend(|histogram| histogram.positive.counts.push(1.0)));
        assert!(bend(|histogram| histogram.positive.spans[1].0 = -1));
        assert!(bend(|histogram| histogram.count = 5.0));
        assert!(bend(|histogram| histogram.positive.counts[0] = -1.0));
        assert!(bend(|histogram| (histogram.schema, histogram.bounds) = (CUSTOM_BOUNDS, vec![2.0, 1.0])));
    }
}
