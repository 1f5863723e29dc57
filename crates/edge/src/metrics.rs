//! Names of the metrics of this crate.

/// Counter by `path` and `status`: responses sent.
pub const REQUESTS_TOTAL: &str = "wardroom_http_requests_total";
/// Counter by `reason`: requests rejected before they reached a handler.
pub const REFUSED_TOTAL: &str = "wardroom_http_refused_total";
