//! Names of the pipeline's metrics.

/// Gauge: records on the bus that detection has not processed yet.
pub const DETECT_LAG_RECORDS: &str = "wardroom_detect_lag_records";
/// Counter by `limit`: records that a limit of the tenant refused, or kept out of a part of detection: `series`,
/// `series_bytes`, `services`, `histogram_families`, `histogram_families_per_service`, `calls`, `deployments`
/// (refused); `span_services`, `span_families`, `native_histograms`, `log_templates`, `metadata` (stored); `signals`,
/// `stalled_points` (points that were not judged: beyond the limit, or nothing arrived from any sender meanwhile);
/// `open_incidents`, `services_per_incident` (findings).
pub const LIMITED_RECORDS_TOTAL: &str = "wardroom_limited_records_total";
/// Gauge: signals that detection judges, of all tenants.
pub const DETECT_SIGNALS: &str = "wardroom_detect_signals";
/// Gauge: entities that series and spans are about, of all tenants.
pub const DETECT_ENTITIES: &str = "wardroom_detect_entities";
/// Counter: panics of detectors; each is a bug to report.
pub const DETECT_PANICS_TOTAL: &str = "wardroom_detect_panics_total";
/// Counter: duplicate requests of logs, spans or deployments; detection counts them once.
pub const DUPLICATE_REQUESTS_TOTAL: &str = "wardroom_detect_repeated_total";
/// Counter: dead-lettered records (`wardroom bus dlq list`).
pub const DEAD_LETTERS_TOTAL: &str = "wardroom_dead_letters_total";
/// Counter: checkpoints of detection that were written.
pub const CHECKPOINTS_TOTAL: &str = "wardroom_checkpoints_total";
/// Counter: inactive series evicted from memory.
pub const SERIES_EVICTED_TOTAL: &str = "wardroom_head_series_retired_total";
/// Gauge: duration of the last checkpoint, in seconds.
pub const CHECKPOINT_SECONDS: &str = "wardroom_checkpoint_seconds";
/// Gauge: size of the last checkpoint, in bytes.
pub const CHECKPOINT_BYTES: &str = "wardroom_checkpoint_bytes";
/// Gauge: records on the bus that are not in the lake's tables yet.
pub const LAKE_LAG_RECORDS: &str = "wardroom_lake_lag_records";
/// Counter: samples written to the lake.
pub const LAKE_SAMPLES_TOTAL: &str = "wardroom_lake_samples_total";
/// Counter: log lines, spans, deployments and templates written to the lake.
pub const LAKE_EVENTS_TOTAL: &str = "wardroom_lake_events_total";
/// Counter: failed writes to the lake; each is retried.
pub const LAKE_FAILURES_TOTAL: &str = "wardroom_lake_failures_total";
/// Gauge: duration of the last flush of samples, in seconds.
pub const LAKE_FLUSH_SECONDS: &str = "wardroom_lake_flush_seconds";
/// Counter: samples rewritten by compaction.
pub const LAKE_MERGED_ROWS_TOTAL: &str = "wardroom_lake_merged_rows_total";
/// Counter: files processed by maintenance, by task: `merge`, `join`, `expire` or `sweep`.
pub const LAKE_MAINTENANCE_FILES_TOTAL: &str = "wardroom_lake_chore_files_total";
