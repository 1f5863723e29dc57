//! A finding: a rule over one signal that holds. Correlation joins findings to incidents.

use serde::{Deserialize, Serialize};

use crate::severity::Severity;
use crate::signal::SignalId;

/// A signal that is bad by one of the rules, reported at each of its points while it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The signal.
    pub signal: SignalId,
    /// Id of the rule in the table of incident rules, such as `errors` or `saturation-forecast`.
    pub rule: String,
    /// Severity.
    pub severity: Severity,
    /// Whether it may open an incident; otherwise it is evidence that may only join one.
    pub opens: bool,
    /// Estimated onset: telemetry's time of the first bad point, in ms.
    pub since_ms: i64,
    /// Telemetry's time of the newest bad point, in ms.
    pub at_ms: i64,
    /// Newest value, in the signal's unit.
    pub value: f64,
    /// Normal value before the onset.
    pub expected: f64,
    /// The limit that the value crosses; verification compares with it.
    pub limit: f64,
    /// Whether values below the limit are bad, instead of those above it.
    pub low_is_bad: bool,
    /// Interval between the signal's points, in ms; 0 if unknown. Tolerances and quiet times scale with it.
    #[serde(default)]
    pub interval_ms: i64,
    /// What was measured, for titles and evidence: `31 % of requests fail (before: 0 %)`. Contains no untrusted text.
    pub summary: String,
}
