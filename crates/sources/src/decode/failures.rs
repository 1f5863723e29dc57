//! Failures of requests that cannot be decoded, and the limit on records per request.

use wardroom_domain::error::Failure;
use wardroom_edge::InflateError;

/// Maximum number of records (samples, series, symbols, log lines) in one request. Small records need many times their
/// encoded size in memory; real senders send some thousands.
pub(crate) const MAX_RECORDS: usize = 250_000;

/// A body that can never be decoded.
pub(crate) fn malformed(detail: impl Into<String>) -> Failure {
    Failure::Rejected { reason: "malformed", detail: detail.into() }
}

/// A body that cannot be decompressed.
pub(crate) fn inflate_failure(error: InflateError) -> Failure {
    match error {
        InflateError::TooLarge { .. } => Failure::Rejected { reason: "too_large", detail: error.to_string() },
        InflateError::Exhausted => Failure::Retryable(error.to_string()),
        InflateError::Corrupt => malformed(error.to_string()),
    }
}

/// A request with more than [`MAX_RECORDS`] records.
pub(crate) fn too_many(records: &str) -> Failure {
    let detail = format!("the request holds more than {MAX_RECORDS} {records}; send smaller batches");
    Failure::Rejected { reason: "too_large", detail }
}
