//! The past of one signal: a robust centre and spread, and what its extremes usually are.
//!
//! Problem: the mean and deviation of the last n points take a fault into themselves, and one outlier widens them.
//! Model: the centre is the median of the newest 120 good points; the spread is the larger of their MAD and of the
//! distance between their 5 % and 95 % quantiles, both scaled to a standard deviation. Older points are kept as blocks
//! of five minutes for a day: their means show slow wander, their extremes what the signal does now and then anyway.
//! An extreme counts if two points in a row reach it, so that one outlier hides no later fault.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::normal_range::Baseline;
use super::season::Season;

/// Points at full resolution.
const MAX_RECENT_POINTS: usize = 120;
/// Length of a block, in ms.
const BLOCK_MS: i64 = 5 * 60 * 1000;
/// Blocks kept: one day.
const MAX_BLOCKS: usize = 288;
/// Blocks that show how a signal wanders.
const MIN_BLOCKS_OF_WANDER: usize = 6;
/// A standard deviation as a multiple of the median absolute deviation of a normal distribution.
const DEVIATION_PER_MAD: f64 = 1.4826;
/// Distance of the 5 % and the 95 % quantile of a normal distribution, in standard deviations.
const DEVIATIONS_BETWEEN_QUANTILES: f64 = 3.29;
/// The spread of n points is widened by 1 + this / n: few points say little about it.
const FEW_POINTS: f64 = 6.0;
/// Up to this number of points the baseline is computed with every point, then with every eighth.
const POINTS_OF_EAGER_UPDATES: u32 = 40;
/// Weight of the requests of older points, per new point.
const REQUEST_DECAY: f64 = 0.998;

/// Smallest share of failures that chance is computed with.
const MIN_SHARE: f64 = 0.002;
/// Variance of failures below which their dispersion is not known.
const PRIOR_VARIANCE: f64 = 2.0;

/// One good point, as the past takes it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PastPoint {
    pub(super) at_ms: i64,
    pub(super) value: f64,
    /// Failed and all requests.
    pub(super) requests: Option<(f64, f64)>,
}

/// The good points of a signal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Past {
    recent: VecDeque<f32>,
    blocks: VecDeque<Block>,
    open: Option<Block>,
    since_ms: Option<i64>,
    newest_ms: i64,
    count: u32,
    before: Option<f32>,
    center: f64,
    spread: f64,
    /// Failed and all requests, newer ones with more weight.
    requests: (f64, f64),
    /// Squared distances of the failures of a point from the mean share, and what chance would make of them.
    dispersion: (f64, f64),
    season: Option<Box<Season>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Block {
    number: i64,
    sum: f32,
    count: u32,
    high: f32,
    low: f32,
}

impl Past {
    /// Adds a good point.
    pub(super) fn add(&mut self, point: PastPoint) {
        let value = point.value as f32;
        self.count = self.count.saturating_add(1);
        self.since_ms.get_or_insert(point.at_ms);
        self.newest_ms = point.at_ms;
        self.recent.push_back(value);
        if self.recent.len() > MAX_RECENT_POINTS {
            self.recent.pop_front();
        }
        let before = self.before.replace(value);
        self.add_to_block(point.at_ms, value, before);
        if let Some((failed, total)) = point.requests {
            let (all_failed, all) = self.requests;
            let share = ((all_failed + failed + 0.5) / (all + total + 1.0)).clamp(MIN_SHARE, 1.0 - MIN_SHARE);
            let (squares, variance) = self.dispersion;
            let square = (failed - total * share).powi(2);
            let expected = total * share * (1.0 - share);
            self.dispersion = (squares * REQUEST_DECAY + square, variance * REQUEST_DECAY + expected);
            self.requests = (all_failed * REQUEST_DECAY + failed, all * REQUEST_DECAY + total);
        }
        if self.count <= POINTS_OF_EAGER_UPDATES || self.count.is_multiple_of(8) {
            self.update();
        }
    }

    /// Adds any point, good or not, to the daily pattern.
    pub(super) fn add_to_season(&mut self, at_ms: i64, value: f64) {
        Season::add(&mut self.season, self.since_ms, at_ms, value);
    }

    fn add_to_block(&mut self, at_ms: i64, value: f32, before: Option<f32>) {
        let number = at_ms.div_euclid(BLOCK_MS);
        if let Some(block) = self.open.take_if(|block| block.number != number) {
            self.blocks.push_back(block);
            if self.blocks.len() > MAX_BLOCKS {
                self.blocks.pop_front();
            }
        }
        let (high, low) = before.map_or((f32::NEG_INFINITY, f32::INFINITY), |x| (x.min(value), x.max(value)));
        let block = self.open.get_or_insert(Block { number, sum: 0.0, count: 0, high, low });
        block.sum += value;
        block.count += 1;
        block.high = block.high.max(high);
        block.low = block.low.min(low);
    }

    fn update(&mut self) {
        let mut values: Vec<f32> = self.recent.iter().copied().collect();
        values.sort_unstable_by(f32::total_cmp);
        let center = quantile(&values, 0.5);
        let range = quantile(&values, 0.95) - quantile(&values, 0.05);
        let spread = mad(&mut values, center).max(range / DEVIATIONS_BETWEEN_QUANTILES);
        let mut spread = spread * (1.0 + FEW_POINTS / values.len() as f64);
        if self.blocks.len() >= MIN_BLOCKS_OF_WANDER {
            let mut means: Vec<f32> = self.blocks.iter().map(|block| block.sum / block.count as f32).collect();
            means.sort_unstable_by(f32::total_cmp);
            let middle = quantile(&means, 0.5);
            spread = spread.max(mad(&mut means, middle));
        }
        (self.center, self.spread) = (center, spread);
    }

    /// Returns what is normal at a time: by the newest points and, once a daily pattern is proven, by earlier days.
    pub(super) fn baseline(&self, at_ms: i64) -> Baseline {
        let blocks = || self.blocks.iter().chain(self.open.as_ref());
        let high = blocks().map(|block| f64::from(block.high)).fold(self.center, f64::max);
        let low = blocks().map(|block| f64::from(block.low)).fold(self.center, f64::min);
        let plain = Baseline { center: self.center, spread: self.spread, count: self.count, high, low };
        self.season.as_ref().map_or(plain, |season| season.apply(plain, at_ms))
    }

    /// Forgets everything but the daily pattern.
    pub(super) fn restart(&mut self) {
        *self = Self { season: self.season.take(), ..Self::default() };
    }

    /// Returns the largest value that two points in a row reached before a time, by whole blocks, or reach at this time
    /// of the day; `None` if there is neither.
    pub(super) fn high_before(&self, before_ms: i64, now_ms: i64) -> Option<f64> {
        let old = self.blocks.iter().filter(|block| (block.number + 1) * BLOCK_MS <= before_ms);
        let daily = self.season.as_ref().and_then(|season| season.usual(now_ms)).map(|(_, high)| high);
        // A block of a single point has no two in a row.
        old.map(|block| f64::from(block.high)).filter(|high| high.is_finite()).chain(daily).reduce(f64::max)
    }

    /// Returns how much more the shares of failures vary than by chance: 1 if failures are independent, more if they
    /// come in bursts.
    pub(super) fn dispersion(&self) -> f64 {
        let (squares, variance) = self.dispersion;
        ((squares + PRIOR_VARIANCE) / (variance + PRIOR_VARIANCE)).max(1.0)
    }

    /// Returns the requests of a usual point.
    pub(super) fn usual_requests(&self) -> f64 {
        let points = (1.0 - REQUEST_DECAY.powf(f64::from(self.count))) / (1.0 - REQUEST_DECAY);
        self.requests.1 / points.max(1.0)
    }

    /// Returns the number of good points.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Returns the time between the first and the newest good point, in ms.
    pub(super) fn age_ms(&self) -> i64 {
        self.since_ms.map_or(0, |since_ms| self.newest_ms - since_ms)
    }

    /// Returns failed and all requests, newer ones with more weight.
    pub(super) const fn requests(&self) -> (f64, f64) {
        self.requests
    }
}

/// Returns a quantile of sorted values, between two of them by a straight line.
fn quantile(sorted: &[f32], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = q * last as f64;
    let (low, share) = (position.floor() as usize, position.fract());
    let (a, b) = (f64::from(sorted[low]), f64::from(sorted[(low + 1).min(last)]));
    a + (b - a) * share
}

/// Returns the median absolute deviation, scaled to a standard deviation. Overwrites the values.
fn mad(values: &mut [f32], center: f64) -> f64 {
    for value in values.iter_mut() {
        *value = (f64::from(*value) - center).abs() as f32;
    }
    values.sort_unstable_by(f32::total_cmp);
    DEVIATION_PER_MAD * quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(values: impl IntoIterator<Item = f64>, step_ms: i64) -> Past {
        let mut past = Past::default();
        for (value, step) in values.into_iter().zip(0..) {
            past.add(PastPoint { at_ms: step * step_ms, value, requests: None });
        }
        past
    }

    #[test]
    fn one_outlier_moves_neither_centre_nor_extremes() {
        let mut values = [9.0, 10.0, 11.0].repeat(30);
        values[45] = 1e6;
        let baseline = past(values, 15_000).baseline(0);
        assert_eq!((baseline.center, baseline.count), (10.0, 90));
        assert!(baseline.high <= 11.0 && baseline.low >= 9.0 && baseline.spread < 2.0, "{baseline:?}");
    }

    #[test]
    fn what_two_points_in_a_row_reach_is_usual_for_a_day() {
        let mut values = vec![10.0; 400];
        values[50..52].fill(80.0);
        let past = past(values, 15_000);
        assert_eq!(past.baseline(0).high, 80.0);
    }

    #[test]
    fn few_points_have_a_wide_spread() {
        let spread = |n| past([9.0, 10.0, 11.0].into_iter().cycle().take(n), 1000).baseline(0).spread;
        assert!(spread(6) > 1.5 * spread(90));
    }

    #[test]
    fn memory_is_bounded() {
        let past = past((0..200_000).map(|step| f64::from(step % 7)), 15_000);
        assert_eq!((past.recent.len(), past.blocks.len()), (MAX_RECENT_POINTS, MAX_BLOCKS));
        assert!(postcard::to_allocvec(&past).unwrap().len() < 16_000);
    }
}
