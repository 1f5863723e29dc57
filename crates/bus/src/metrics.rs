//! Names of the bus metrics.

/// Counter: records made durable.
pub const APPENDED_TOTAL: &str = "wardroom_bus_appended_records_total";
/// Counter: fdatasync calls; records per sync is the group size.
pub const SYNCS_TOTAL: &str = "wardroom_bus_syncs_total";
/// Counter: failed appends.
pub const APPEND_FAILURES_TOTAL: &str = "wardroom_bus_append_failures_total";
/// Counter: damaged records skipped while reading.
pub const CORRUPT_TOTAL: &str = "wardroom_bus_corrupt_records_total";
/// Gauge: size of all segments in bytes.
pub const SIZE_BYTES: &str = "wardroom_bus_size_bytes";
