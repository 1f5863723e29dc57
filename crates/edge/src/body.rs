//! Reading a body within its limits of size and time.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;

use crate::{Config, Problem};

/// Reads a whole body.
///
/// # Errors
/// 413 over the size limit, 503 over the time limit, 400 if the connection breaks.
pub async fn read_body(body: Body, config: &Config) -> Result<Bytes, Problem> {
    let limit = config.max_body_bytes;
    let reading = axum::body::to_bytes(body, limit);
    match tokio::time::timeout(Duration::from_secs(config.body_timeout_seconds), reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if format!("{error:?}").contains("LengthLimit") => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {limit} bytes; send smaller batches or raise edge.max-body-bytes"),
        )),
        Ok(Err(error)) => Err(Problem::bad_request("body_broken", format!("the body could not be read: {error}"))),
        // 408 would say it better, and Prometheus and OpenTelemetry drop the data on it.
        Err(_) => Err(Problem::unavailable(
            "body_timeout",
            "the body did not arrive in time; send it again, or see edge.body-timeout-seconds",
        )),
    }
}
