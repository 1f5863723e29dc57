//! Names of the metrics of the roles.

/// Gauge: 1 while the executor responds, else 0.
pub const EXECUTOR_UP: &str = "wardroom_executor_up";
/// Gauge: 1 if the last probe sample reached detection, else 0; without it no heartbeat is sent.
pub const HEARTBEAT_PROBE_ARRIVED: &str = "wardroom_heartbeat_probe_arrived";
/// Gauge: time of the last backup's data, in seconds since the epoch; absent without a backup.
pub const BACKUP_SECONDS: &str = "wardroom_backup_last_success_timestamp_seconds";
/// Gauge: size of the last backup, in bytes.
pub const BACKUP_BYTES: &str = "wardroom_backup_last_size_bytes";
/// Counter: log lines of the server that could not be written to stderr.
pub const LOG_LINES_LOST_TOTAL: &str = "wardroom_log_lines_lost_total";
/// Gauge: 1 while the executor signs the audit log, else 0; `/readyz` says why.
pub const AUDIT_SIGNING_UP: &str = "wardroom_audit_signing_up";
/// Gauge: entries of the audit log that are not signed although signing was tried.
pub const AUDIT_UNSIGNED_ENTRIES: &str = "wardroom_audit_unsigned_entries";
/// Gauge: 1 while the state database works, else 0; `/readyz` says why.
pub const STORE_UP: &str = "wardroom_store_up";
/// Gauge: files of the lake that do not match their checksums; `/readyz` and the log name them.
pub const LAKE_DAMAGED_FILES: &str = "wardroom_lake_damaged_files";
