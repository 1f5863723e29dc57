//! Names of the metrics of telemetry's way.

/// Gauge: records on the bus that detection has not seen yet.
pub const DETECT_LAG_RECORDS: &str = "wardroom_detect_lag_records";
/// Counter: times a detector panicked on a record; each is a defect worth a report.
pub const DETECT_PANICS_TOTAL: &str = "wardroom_detect_panics_total";
/// Counter: requests of logs, spans or deployments that a sender repeated; they count once.
pub const REPEATED_TOTAL: &str = "wardroom_detect_repeated_total";
/// Counter: records that detection laid aside (`wardroom bus dlq list`).
pub const DEAD_LETTERS_TOTAL: &str = "wardroom_dead_letters_total";
/// Counter: checkpoints of detection that were written.
pub const CHECKPOINTS_TOTAL: &str = "wardroom_checkpoints_total";
/// Counter: series that nobody wrote any more and that left memory.
pub const SERIES_RETIRED_TOTAL: &str = "wardroom_head_series_retired_total";
/// Gauge: seconds that the last checkpoint took.
pub const CHECKPOINT_SECONDS: &str = "wardroom_checkpoint_seconds";
/// Gauge: bytes of the last checkpoint.
pub const CHECKPOINT_BYTES: &str = "wardroom_checkpoint_bytes";
/// Gauge: records on the bus that are not in the lake's tables yet.
pub const LAKE_LAG_RECORDS: &str = "wardroom_lake_lag_records";
/// Counter: samples written to the lake.
pub const LAKE_SAMPLES_TOTAL: &str = "wardroom_lake_samples_total";
/// Counter: log lines, spans, deployments and templates written to the lake.
pub const LAKE_EVENTS_TOTAL: &str = "wardroom_lake_events_total";
/// Counter: times that writing to the lake failed; it is tried again.
pub const LAKE_FAILURES_TOTAL: &str = "wardroom_lake_failures_total";
/// Gauge: seconds that the last flush took.
pub const LAKE_FLUSH_SECONDS: &str = "wardroom_lake_flush_seconds";
/// Counter: samples that were merged into longer files.
pub const LAKE_MERGED_ROWS_TOTAL: &str = "wardroom_lake_merged_rows_total";
/// Counter: files that were looked after, by what was done: `merge`, `join`, `expire` or `sweep`.
pub const LAKE_CHORE_FILES_TOTAL: &str = "wardroom_lake_chore_files_total";
