//! What the kind of a signal says about its values: their unit, and which of them are bad.

use wardroom_domain::{SignalId, SignalKind};
use wardroom_signals::{Direction, SignalUnit};

/// End of the name of signals that are a share of a limit.
const SHARE_SUFFIX: &str = "/limit";

/// Returns the unit of a signal's values; that of errors by one of its values, since shares are at most 1.
pub fn unit_of(id: &SignalId, value: f64) -> SignalUnit {
    match id.kind {
        SignalKind::Availability => SignalUnit::Ratio,
        SignalKind::Saturation if id.metric.ends_with(SHARE_SUFFIX) => SignalUnit::Ratio,
        SignalKind::Errors if (0.0..=1.0).contains(&value) => SignalUnit::Ratio,
        SignalKind::Errors | SignalKind::Traffic | SignalKind::Logs => SignalUnit::PerSecond,
        SignalKind::Latency | SignalKind::Freshness | SignalKind::Expiry => SignalUnit::Seconds,
        SignalKind::Saturation if matches!(id.resource.as_str(), "memory" | "heap") => SignalUnit::Bytes,
        SignalKind::Saturation | SignalKind::Queue | SignalKind::Restarts | SignalKind::Other => SignalUnit::Number,
    }
}

/// Returns which values of a signal of this kind are bad.
pub const fn direction_of(kind: SignalKind) -> Direction {
    match kind {
        SignalKind::Availability | SignalKind::Expiry => Direction::Low,
        SignalKind::Traffic | SignalKind::Other => Direction::Neutral,
        SignalKind::Errors
        | SignalKind::Latency
        | SignalKind::Saturation
        | SignalKind::Queue
        | SignalKind::Restarts
        | SignalKind::Freshness
        | SignalKind::Logs => Direction::High,
    }
}
