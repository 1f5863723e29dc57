//! A rolling baseline: mean and variance of the last 1000 samples, as ten blocks of 100 samples.
//!
//! Each block keeps (mean, M2), which are merged by Chan's formula. Eviction drops a whole block, so the window holds
//! 900 to 1000 samples in 144 bytes instead of 8000. The full blocks are merged once per 100 samples, so that a sample
//! costs one merge and one step of Welford's algorithm.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation of about the last 1000 samples.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RollingBaseline {
    /// The blocks, as two arrays to avoid padding. The sums of squares are `f32`: the error is about 1e-6 of the
    /// deviation, and every series has one.
    means: [f64; BLOCK_COUNT],
    m2s: [f32; BLOCK_COUNT],
    /// The full blocks, merged.
    full: Block,
    full_n: u32,
    open: u16,
    open_n: u16,
}

const BLOCK_COUNT: usize = 10;
const BLOCK_SAMPLES: u16 = 100;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Block {
    mean: f64,
    m2: f64,
}

impl RollingBaseline {
    /// Adds a sample (Welford's algorithm).
    #[inline]
    pub(crate) fn add(&mut self, x: f64) {
        if self.open_n >= BLOCK_SAMPLES {
            self.roll();
        }
        let mean = &mut self.means[usize::from(self.open)];
        self.open_n += 1;
        let delta = x - *mean;
        *mean += delta / f64::from(self.open_n);
        self.m2s[usize::from(self.open)] += (delta * (x - *mean)) as f32;
    }

    /// Returns the number of samples in the window.
    pub(crate) fn count(&self) -> u32 {
        self.full_n + u32::from(self.open_n)
    }

    /// Returns mean and standard deviation (population) of the window.
    pub(crate) fn mean_and_deviation(&self) -> (f64, f64) {
        let (mean, variance) = self.mean_and_variance();
        (mean, variance.sqrt())
    }

    /// Returns mean and variance (population) of the window.
    #[inline]
    pub(crate) fn mean_and_variance(&self) -> (f64, f64) {
        let open = (f64::from(self.open_n), self.block(usize::from(self.open)));
        let (n, whole) = merge((f64::from(self.full_n), self.full), open);
        (whole.mean, if n > 0.0 { (whole.m2 / n).max(0.0) } else { 0.0 })
    }

    fn block(&self, index: usize) -> Block {
        Block { mean: self.means[index], m2: f64::from(self.m2s[index]) }
    }

    /// Closes the open block and evicts the oldest.
    #[cold]
    fn roll(&mut self) {
        let kept = (self.full_n / u32::from(BLOCK_SAMPLES) + 1).min(BLOCK_COUNT as u32 - 1) as usize;
        let newest = usize::from(self.open);
        let closed = (0..kept).map(|age| self.block((newest + BLOCK_COUNT - age) % BLOCK_COUNT));
        let n = f64::from(BLOCK_SAMPLES);
        let (_, full) = closed.fold((0.0, Block::default()), |whole, block| merge(whole, (n, block)));
        self.full = full;
        self.full_n = kept as u32 * u32::from(BLOCK_SAMPLES);
        self.open = ((newest + 1) % BLOCK_COUNT) as u16;
        self.open_n = 0;
        (self.means[usize::from(self.open)], self.m2s[usize::from(self.open)]) = (0.0, 0.0);
    }
}

/// Merges two sets of samples (Chan, Golub, LeVeque 1979).
#[inline]
fn merge((a_n, a): (f64, Block), (b_n, b): (f64, Block)) -> (f64, Block) {
    let n = a_n + b_n;
    if n == 0.0 {
        return (0.0, Block::default());
    }
    let delta = b.mean - a.mean;
    let share = b_n / n;
    (n, Block { mean: a.mean + delta * share, m2: a.m2 + b.m2 + delta * delta * a_n * share })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_two_pass_formula(values in prop::collection::vec(-1e6_f64..1e6, 1..900)) {
            let mut baseline = RollingBaseline::default();
            values.iter().for_each(|x| baseline.add(*x));
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
            let (got_mean, got_deviation) = baseline.mean_and_deviation();
            prop_assert!((got_mean - mean).abs() <= 1e-6 * mean.abs().max(1.0));
            prop_assert!((got_deviation - deviation).abs() <= 1e-6 * deviation.max(1.0));
        }
    }

    #[test]
    fn evicts_old_samples() {
        let mut baseline = RollingBaseline::default();
        (0..1000).for_each(|_| baseline.add(5.0));
        (0..1000).for_each(|_| baseline.add(7.0));
        assert_eq!(baseline.mean_and_deviation(), (7.0, 0.0));
        assert_eq!(baseline.count(), 1000);
    }
}
