//! Names of the intake's own metrics.

/// Counter by `protocol`: requests that arrived.
pub const REQUESTS_TOTAL: &str = "wardroom_intake_requests_total";
/// Counter by `protocol`: records made durable.
pub const ACCEPTED_TOTAL: &str = "wardroom_intake_accepted_records_total";
/// Counter by `protocol` and `reason`: records or whole requests refused.
pub const REJECTED_TOTAL: &str = "wardroom_intake_rejected_records_total";
/// Counter by `protocol`: bytes of bodies as received.
pub const BYTES_TOTAL: &str = "wardroom_intake_bytes_total";
/// Histogram by `protocol`: seconds from the whole body to the answer.
pub const LATENCY_SECONDS: &str = "wardroom_intake_latency_seconds";
