//! Names of the metrics of this crate.

/// Counter by `protocol`: requests received.
pub const REQUESTS_TOTAL: &str = "wardroom_intake_requests_total";
/// Counter by `protocol`: records accepted and made durable.
pub const ACCEPTED_TOTAL: &str = "wardroom_intake_accepted_records_total";
/// Counter by `protocol` and `reason`: records or requests refused.
pub const REJECTED_TOTAL: &str = "wardroom_intake_rejected_records_total";
/// Counter by `protocol`: bytes of request bodies as received.
pub const BYTES_TOTAL: &str = "wardroom_intake_bytes_total";
/// Histogram by `protocol`: request duration in seconds.
pub const LATENCY_SECONDS: &str = "wardroom_intake_latency_seconds";
