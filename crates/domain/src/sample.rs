//! One measured value, and the staleness marker.

use serde::{Deserialize, Serialize};

/// Bits of Prometheus' staleness marker: a NaN that says "this series ended".
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Returns whether a value is the staleness marker.
pub const fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One measured value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Time in ms since the epoch.
    pub ts_ms: i64,
    /// The value; any bit pattern, including NaN payloads.
    pub value: f64,
}
