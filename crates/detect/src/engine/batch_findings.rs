//! The result of a batch.

use wardroom_domain::{Anomaly, Finding};

/// The result of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchFindings {
    /// Shifts of series, admitted by the budget, and of signals.
    pub anomalies: Vec<Anomaly>,
    /// Rules that hold, once for each of their bad points.
    pub findings: Vec<Finding>,
    /// Records of the batch that a limit kept out of detection.
    pub limited: LimitedRecords,
}

/// Numbers of records that a limit kept out of a part of detection; they are stored all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitedRecords {
    /// Spans of entities beyond the limit.
    pub span_services: u64,
    /// Durations of services and calls beyond the limit.
    pub span_families: u64,
    /// Native histograms of series beyond the limit.
    pub native_histograms: u64,
    /// Log lines without a template of their own.
    pub log_templates: u64,
    /// Points of signals beyond the limit.
    pub signals: u64,
    /// Points that were not judged, because nothing arrived from any sender in their window.
    pub stalled_points: u64,
}
