//! Names of the metrics of this crate.

/// Counter by `path` and `status`: responses sent.
pub const REQUESTS_TOTAL: &str = "wardroom_http_requests_total";
/// Counter by `reason`: requests rejected before they reached a handler.
pub const REFUSED_TOTAL: &str = "wardroom_http_refused_total";
/// Gauge: open connections.
pub const CONNECTIONS: &str = "wardroom_http_connections";
/// Counter by `reason` (`per_address`, `total`): connections refused at a limit.
pub const CONNECTIONS_REFUSED_TOTAL: &str = "wardroom_http_connections_refused_total";
/// Counter by `reason` (`idle`, `header_timeout`, `evicted`): connections closed because they waited for their client.
pub const CONNECTIONS_CLOSED_TOTAL: &str = "wardroom_http_connections_closed_total";
/// Gauge by `listener` (`http`, `otlp_grpc`): when the certificate in force expires, in seconds since the epoch; absent
/// without TLS.
pub const TLS_CERTIFICATE_EXPIRY_SECONDS: &str = "wardroom_tls_certificate_expiry_seconds";
/// Counter by `listener`: connections whose TLS handshake failed.
pub const TLS_HANDSHAKES_FAILED_TOTAL: &str = "wardroom_tls_handshakes_failed_total";
