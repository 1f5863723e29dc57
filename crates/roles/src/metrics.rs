//! Names of the metrics of the roles.

/// Counter: incidents opened.
pub const INCIDENTS_OPENED_TOTAL: &str = "wardroom_incidents_opened_total";
/// Counter: steps of an incident's response that failed and will be tried again.
pub const RESPOND_FAILURES_TOTAL: &str = "wardroom_respond_failures_total";
/// Gauge: 1 while the executor answers, else 0.
pub const EXECUTOR_UP: &str = "wardroom_executor_up";
/// Gauge: 1 if the last probe sample reached the detector, else 0; without it no heartbeat goes out.
pub const HEARTBEAT_PROBE_ARRIVED: &str = "wardroom_heartbeat_probe_arrived";
/// Gauge: queries over the tables that are running.
pub const QUERIES_RUNNING: &str = "wardroom_queries_running";
/// Gauge: as of when the last backup was made, in seconds since the epoch; absent if none was.
pub const BACKUP_SECONDS: &str = "wardroom_backup_last_success_timestamp_seconds";
/// Gauge: bytes of the last backup.
pub const BACKUP_BYTES: &str = "wardroom_backup_last_size_bytes";
