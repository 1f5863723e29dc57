//! The rolling baseline of seed 002: the last 1000 samples, as ten blocks of a hundred.
//!
//! Each block keeps (n, mean, M2); joining them is Chan's formula. Forgetting drops a whole block, so
//! the window holds between 900 and 1000 samples. That is 240 bytes a series instead of 8000.

/// Mean and spread of about the last thousand samples.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    blocks: [Block; BLOCKS],
    open: usize,
}

const BLOCKS: usize = 10;
const BLOCK: u32 = 100;

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    n: u32,
    mean: f64,
    m2: f64,
}

impl Baseline {
    /// Adds a sample (Welford).
    pub fn add(&mut self, x: f64) {
        if self.blocks[self.open].n >= BLOCK {
            self.open = (self.open + 1) % BLOCKS;
            self.blocks[self.open] = Block::default();
        }
        let block = &mut self.blocks[self.open];
        block.n += 1;
        let delta = x - block.mean;
        block.mean += delta / f64::from(block.n);
        block.m2 += delta * (x - block.mean);
    }

    /// Samples in the window.
    pub fn count(&self) -> u32 {
        self.blocks.iter().map(|block| block.n).sum()
    }

    /// Mean and standard deviation (population) of the window.
    pub fn mean_and_deviation(&self) -> (f64, f64) {
        let (mut n, mut mean, mut m2) = (0.0, 0.0, 0.0);
        for block in self.blocks.iter().filter(|block| block.n > 0) {
            let (block_n, delta) = (f64::from(block.n), block.mean - mean);
            let total = n + block_n;
            mean += delta * block_n / total;
            m2 += block.m2 + delta * delta * n * block_n / total;
            n = total;
        }
        (mean, if n > 0.0 { (m2 / n).max(0.0).sqrt() } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_plain_formula(values in prop::collection::vec(-1e6_f64..1e6, 1..900)) {
            let mut baseline = Baseline::default();
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
    fn the_window_forgets() {
        let mut baseline = Baseline::default();
        (0..1000).for_each(|_| baseline.add(5.0));
        (0..1000).for_each(|_| baseline.add(7.0));
        assert_eq!(baseline.mean_and_deviation(), (7.0, 0.0));
        assert_eq!(baseline.count(), 1000);
    }
}
