//! How services fare, in numbers.

/// How a service fared in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceHealth {
    /// Which service.
    pub service: String,
    /// Requests a second, on average.
    pub requests: Option<f64>,
    /// Share of them that failed, 0..1, on average.
    pub errors: Option<f64>,
    /// The worst 99th percentile of the duration, in seconds.
    pub latency_p99: Option<f64>,
    /// The highest share of the CPU limit, 0..1.
    pub cpu: Option<f64>,
    /// The highest share of the memory limit, 0..1.
    pub memory: Option<f64>,
    /// Signals that are in breach now.
    pub breaches: u32,
}
