//! gRPC status codes for HTTP statuses.

use axum::http::StatusCode;

/// Returns the gRPC code for an HTTP status, chosen by the senders' behaviour: they retry on UNAVAILABLE (14) and
/// DEADLINE_EXCEEDED (4), not on the other codes.
pub(crate) const fn grpc_code(status: StatusCode) -> u8 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 | 415 => 12,
        408 => 4,
        413 => 8,
        400..=499 => 3,
        _ => 14,
    }
}
