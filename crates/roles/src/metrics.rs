//! Names of the metrics of the roles.

/// Counter: incidents opened.
pub const INCIDENTS_OPENED_TOTAL: &str = "wardroom_incidents_opened_total";
/// Counter: steps of an incident's response that failed and will be tried again.
pub const RESPOND_FAILURES_TOTAL: &str = "wardroom_respond_failures_total";
/// Gauge: 1 while the executor answers, else 0.
pub const EXECUTOR_UP: &str = "wardroom_executor_up";
/// Gauge: records on the bus that detection has not seen yet.
pub const DETECT_LAG_RECORDS: &str = "wardroom_detect_lag_records";
/// Counter: batches left out because a detector panicked on them; each is a defect worth a report.
pub const DETECT_PANICS_TOTAL: &str = "wardroom_detect_panics_total";
/// Gauge: 1 if the last probe sample reached the detector, else 0; without it no heartbeat goes out.
pub const HEARTBEAT_PROBE_ARRIVED: &str = "wardroom_heartbeat_probe_arrived";
