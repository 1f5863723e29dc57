//! A point: one complete measurement of a signal over a window.

use serde::{Deserialize, Serialize};

/// One measurement of a signal. Points of a signal share no samples: a window begins where the one before ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// End of the window, in telemetry's time of the entity, in ms.
    pub at_ms: i64,
    /// Length of the window, in ms: the longest of the configured window, the senders' interval and the time that
    /// enough requests took.
    pub window_ms: i64,
    /// The value, in the signal's unit.
    pub value: f64,
    /// The requests of the window, for the signals of requests.
    pub requests: Option<RequestCounts>,
    /// The limit, where one is known and the value is in its unit; a ratio has none.
    pub limit: Option<f64>,
    /// Members that reported.
    pub members: u32,
    /// Known members that did not report until the grace was over. They are neither good nor bad.
    pub missing: u32,
    /// What went through the queue, for queues of which it is known.
    pub flow: Option<Flow>,
    /// How the durations are spread, for latencies that are quantiles.
    pub tail: Option<Tail>,
}

/// How the durations of the requests of a latency are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Share of the requests that took longer than the value: 0.01 for a 99th percentile.
    pub share: f64,
    /// Further quantiles in seconds, as [`Tail::QUANTILES`]; 0 if unknown.
    pub quantiles: [f64; 4],
}

impl Tail {
    /// The further quantiles, as probabilities.
    pub const QUANTILES: [f64; 4] = [0.5, 0.75, 0.9, 0.95];

    /// Returns the share of the requests that certainly took longer than this, if the value did.
    pub fn share_above(&self, seconds: f64) -> f64 {
        let known = self.quantiles.into_iter().zip(Self::QUANTILES);
        known.filter(|(value, _)| *value > seconds).map(|(_, q)| 1.0 - q).fold(self.share, f64::max)
    }
}

/// Items that went through a queue within a window, per second. `None`: nothing reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Items put in.
    pub added: Option<f64>,
    /// Items taken out.
    pub drained: Option<f64>,
}

/// Requests within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// All.
    pub total: f64,
    /// Failed ones.
    pub failed: f64,
}
