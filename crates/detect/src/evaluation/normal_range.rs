//! What is normal for a signal: the value, the distance from it, and the usual extremes.

/// What is normal for a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Baseline {
    /// The normal value, in the signal's unit.
    pub center: f64,
    /// The normal distance from it, comparable to a standard deviation.
    pub spread: f64,
    /// Number of good points seen.
    pub count: u32,
    /// Largest value that two points in a row reach now and then.
    pub high: f64,
    /// Smallest value that two points in a row reach now and then.
    pub low: f64,
}
