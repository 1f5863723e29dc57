//! Something unusual about one series at one moment. Not yet an incident.

use serde::{Deserialize, Serialize};

use crate::canonical::sha256_hex;
use crate::labels::Labels;
use crate::severity::Severity;
use crate::time::Timestamp;

/// One unusual point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Derived from detector, series and time, so that a replay finds it again.
    pub id: String,
    /// The series, or the signal made of several series (`__name__` then starts with `signal:`).
    pub series: Labels,
    /// The service it belongs to; empty if none could be named.
    pub service: String,
    /// Which detector: `zscore` or `threshold`.
    pub detector: String,
    /// 0..1, how sure the detector is.
    pub score: f64,
    /// Standard deviations from the mean; 0 for a threshold.
    pub z: f64,
    /// By seed 002's and seed 003's bands.
    pub severity: Severity,
    /// What was seen.
    pub value: f64,
    /// What was expected: the baseline's mean, or the threshold.
    pub expected: f64,
    /// When.
    pub at: Timestamp,
}

/// The id of an anomaly: the first 16 hex digits of SHA-256 over detector, series and milliseconds.
pub fn anomaly_id(detector: &str, series: &Labels, at: Timestamp) -> String {
    let mut id = sha256_hex(format!("{detector}\n{series}\n{}", at.millis()).as_bytes());
    id.truncate(16);
    id
}
