//! Repeatable randomness: everything about a case follows from its name and a seed.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Words that names are made of.
const WORDS: [&str; 40] = [
    "amber", "basalt", "birch", "cobalt", "comet", "coral", "delta", "ember", "falcon", "fjord", "garnet", "glacier",
    "harbor", "heron", "indigo", "jasper", "juniper", "kestrel", "lagoon", "lotus", "maple", "marlin", "meadow",
    "nimbus", "onyx", "opal", "osprey", "pepper", "pine", "quartz", "raven", "reef", "saffron", "sequoia", "sparrow",
    "tundra", "umber", "velvet", "willow", "zephyr",
];

/// A source of repeatable random numbers.
pub(super) struct Random(StdRng);

/// Returns a number that depends on a text only (FNV-1a).
pub(super) fn hash(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The lowest bit of FNV depends on few bytes.
    hash ^ (hash >> 29)
}

impl Random {
    pub(super) fn new(name: &str, seed: u64) -> Self {
        Self(StdRng::seed_from_u64(hash(name) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Returns a number in 0..1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0.random_range(0.0..1.0)
    }

    /// Returns an index below `length`.
    pub(super) fn index(&mut self, length: usize) -> usize {
        self.0.random_range(0..length.max(1))
    }

    /// Returns one of several values.
    pub(super) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.index(values.len())]
    }

    /// Returns a word for a name.
    pub(super) fn word(&mut self) -> &'static str {
        self.one_of(&WORDS)
    }

    /// Returns a text of letters and digits, as orchestrators append to names.
    pub(super) fn suffix(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length).map(|_| char::from(LETTERS[self.index(LETTERS.len())])).collect()
    }

    /// Returns a number of the standard normal distribution.
    pub(super) fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform().max(1e-12), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// Returns a count of a Poisson distribution.
    pub(super) fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }

    /// Returns the duration of a request: lognormal around a median, one in two hundred is eight times as long.
    pub(super) fn duration(&mut self, median: f64) -> f64 {
        let tail = if self.uniform() < 0.005 { 8.0 } else { 1.0 };
        median * (0.6 * self.normal()).exp() * tail
    }
}
