//! Queries for samples, recent or stored (ADR 004).

use std::num::NonZeroU32;

use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::sample::{Sample, is_stale};
use crate::time::Timestamp;

/// A query for samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuery {
    /// A series is selected if it matches all matchers of any selector; without selectors, all series are.
    pub selectors: Vec<Vec<Matcher>>,
    /// Start of the range, inclusive.
    pub start: Timestamp,
    /// End of the range, inclusive.
    pub end: Timestamp,
    /// Step in ms: return the newest sample at each step instead of all samples.
    pub step_ms: Option<NonZeroU32>,
}

/// Maximum age of the newest sample at a step, in ms; like Prometheus' `--query.lookback-delta`.
pub const LOOKBACK_MS: i64 = 300_000;

/// Maximum number of selectors in one request; each costs an index lookup.
pub const MAX_SELECTORS: usize = 64;
/// Maximum number of patterns in one request; each may take a quarter of a mebibyte compiled.
pub const MAX_PATTERNS: usize = 32;

impl SeriesQuery {
    /// Adds a selector.
    ///
    /// # Errors
    /// Returns a message if the query has too many selectors or patterns then.
    pub fn add_selector(&mut self, selector: Vec<Matcher>) -> Result<(), String> {
        self.selectors.push(selector);
        if self.selectors.len() > MAX_SELECTORS {
            return Err(format!("more than {MAX_SELECTORS} selectors; join names as in {{__name__=~\"a|b\"}}"));
        }
        if self.selectors.iter().flatten().filter(|matcher| matcher.is_pattern()).count() > MAX_PATTERNS {
            return Err(format!("more than {MAX_PATTERNS} matchers with =~ or !~; send several requests"));
        }
        Ok(())
    }

    /// Returns the number of steps; 0 without a step.
    pub fn steps(&self) -> u64 {
        let Some(step_ms) = self.step_ms else { return 0 };
        let span_ms = self.end.millis().saturating_sub(self.start.millis());
        u64::try_from(span_ms).map_or(0, |span_ms| span_ms / u64::from(step_ms.get()) + 1)
    }

    /// Returns the newest sample at each step: none before the first sample, after a staleness marker, or if it is
    /// older than [`LOOKBACK_MS`]. `samples` must be ascending and begin [`LOOKBACK_MS`] before the start.
    pub fn at_steps(&self, samples: &[Sample]) -> Vec<Sample> {
        let (start_ms, step_ms) = (self.start.millis(), self.step_ms.map_or(1, NonZeroU32::get));
        let (mut next, mut points) = (0, Vec::new());
        for step in 0..self.steps() {
            let at_ms = start_ms + step as i64 * i64::from(step_ms);
            next += samples[next..].iter().take_while(|sample| sample.ts_ms <= at_ms).count();
            let newest = next.checked_sub(1).map(|newest| samples[newest]);
            let not_stale = newest.filter(|newest| newest.ts_ms > at_ms - LOOKBACK_MS && !is_stale(newest.value));
            points.extend(not_stale.map(|newest| Sample { ts_ms: at_ms, value: newest.value }));
        }
        points
    }

    /// Returns whether the query selects a label set.
    pub fn selects(&self, labels: &Labels) -> bool {
        let all = |selector: &Vec<Matcher>| selector.iter().all(|matcher| matcher.matches(labels));
        self.selectors.is_empty() || self.selectors.iter().any(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::STALE_NAN_BITS;

    #[test]
    fn selectors_and_their_patterns_are_limited() {
        let add = |selector: &str, times: usize| {
            let mut query = SeriesQuery {
                selectors: Vec::new(),
                start: Timestamp::from_millis(0),
                end: Timestamp::from_millis(1),
                step_ms: None,
            };
            (0..times).try_for_each(|_| query.add_selector(Matcher::parse_selector(selector).unwrap()))
        };
        assert_eq!(add("up", MAX_SELECTORS), Ok(()));
        assert!(add("up", MAX_SELECTORS + 1).unwrap_err().contains("selectors"));
        assert_eq!(add(r#"up{a=~"x",b!~"y"}"#, MAX_PATTERNS / 2), Ok(()));
        assert!(add(r#"up{a=~"x",b!~"y"}"#, MAX_PATTERNS / 2 + 1).unwrap_err().contains("=~ or !~"));
    }

    #[test]
    fn steps_return_the_newest_sample_like_prometheus() {
        let query = SeriesQuery {
            selectors: Vec::new(),
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(600_000),
            step_ms: NonZeroU32::new(60_000),
        };
        let sample = |ts_ms: i64, value: f64| Sample { ts_ms, value };
        let stale = f64::from_bits(STALE_NAN_BITS);
        let samples = [
            sample(-10_000, 1.0),
            sample(50_000, 2.0),
            sample(60_000, 3.0),
            sample(500_000, 4.0),
            sample(590_000, stale),
        ];
        let points: Vec<(i64, f64)> =
            query.at_steps(&samples).iter().map(|point| (point.ts_ms / 60_000, point.value)).collect();
        assert_eq!(points, [(0, 1.0), (1, 3.0), (2, 3.0), (3, 3.0), (4, 3.0), (5, 3.0), (9, 4.0)]);
        assert_eq!((query.steps(), query.at_steps(&[]).len()), (11, 0));
    }
}
