//! Names of the edge's own metrics.

/// Counter by `path` and `status`: requests answered.
pub const REQUESTS_TOTAL: &str = "wardroom_http_requests_total";
/// Counter by `reason`: requests refused before any handler saw them.
pub const REFUSED_TOTAL: &str = "wardroom_http_refused_total";
