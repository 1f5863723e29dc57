//! An anomaly: one unusual point of one series. Not yet an incident.

use serde::{Deserialize, Serialize};

use crate::canonical::sha256_hex;
use crate::entity::Entity;
use crate::labels::Labels;
use crate::severity::Severity;
use crate::time::Timestamp;

/// One unusual point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Id derived from detector, series and time, so that a replay produces the same one.
    pub id: String,
    /// The series, or a signal computed from several series (`__name__` then starts with `signal:`).
    pub series: Labels,
    /// What the series is about; its name is empty if unknown.
    #[serde(default)]
    pub entity: Entity,
    /// Name of the entity; empty if unknown.
    pub service: String,
    /// The detector: `zscore` or `threshold`.
    pub detector: String,
    /// Confidence of the detector, 0..1.
    pub score: f64,
    /// Standard deviations from the mean; 0 for a threshold.
    pub z: f64,
    /// Severity by the configured z-score bands or thresholds.
    pub severity: Severity,
    /// The observed value.
    pub value: f64,
    /// The expected value: the baseline's mean, or the threshold.
    pub expected: f64,
    /// Time of the point.
    pub at: Timestamp,
}

/// Returns the id of an anomaly: the first 16 hex digits of SHA-256 over detector, series and milliseconds.
pub fn anomaly_id(detector: &str, series: &Labels, at: Timestamp) -> String {
    let mut id = sha256_hex(format!("{detector}\n{series}\n{}", at.millis()).as_bytes());
    id.truncate(16);
    id
}
