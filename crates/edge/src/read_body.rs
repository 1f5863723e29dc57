//! Reads a request body within limits of size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::config::Config;
use crate::problem::Problem;

/// Maximum number of bytes over the limit that are read and discarded. A sender that gets the response while it is
/// still sending may see a connection reset instead and retry the same body; after a 413 it does not retry.
const MAX_DISCARD_BYTES: usize = 64 << 20;
/// Maximum capacity allocated from `Content-Length` alone, in bytes.
const INITIAL_CAPACITY_BYTES: usize = 1 << 20;

/// Reads a whole body.
///
/// # Errors
/// Returns 413 over the size limit, 503 over the time limit and 400 if the connection is lost.
pub async fn read_body(body: Body, config: &Config) -> Result<Bytes, Problem> {
    let collecting = collect(body, config.max_body_bytes);
    // Not 408: Prometheus and OpenTelemetry senders drop the data on 408.
    tokio::time::timeout(Duration::from_secs(config.body_timeout_seconds), collecting).await.unwrap_or_else(|_| {
        let detail = "timeout while reading the body; retry, or raise edge.body-timeout-seconds";
        Err(Problem::unavailable("body_timeout", detail))
    })
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let expected = usize::try_from(HttpBody::size_hint(&body).lower()).unwrap_or(usize::MAX);
    // A body in one chunk is not copied.
    let (mut first, mut whole, mut size) = (Bytes::new(), BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::bad_request("body_broken", format!("reading the body failed: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let before = size;
        size = size.saturating_add(chunk.len());
        if size > limit.saturating_add(MAX_DISCARD_BYTES) {
            break;
        } else if size > limit {
            (first, whole) = (Bytes::new(), BytesMut::new());
        } else if before == 0 {
            first = chunk;
        } else {
            if whole.is_empty() {
                whole.reserve(expected.min(INITIAL_CAPACITY_BYTES).max(size));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&chunk);
        }
    }
    if size > limit {
        let detail =
            format!("the body is larger than {limit} bytes; send smaller batches or raise edge.max-body-bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::body::HttpBody;
    use http_body::Frame;

    use super::*;

    /// A body in chunks; `None` resets the connection.
    struct Chunks(VecDeque<Option<Vec<u8>>>);

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| match chunk {
                Some(chunk) => Ok(Frame::data(chunk.into())),
                None => Err(std::io::ErrorKind::ConnectionReset.into()),
            }))
        }
    }

    #[track_caller]
    fn check(chunks: &[Option<&[u8]>], expected: Result<&[u8], &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let body = Body::new(Chunks(chunks.iter().map(|chunk| chunk.map(<[u8]>::to_vec)).collect()));
        let config = Config { max_body_bytes: 5, ..Config::default() };
        let read = runtime.block_on(read_body(body, &config));
        assert_eq!(read.as_deref().map_err(Problem::code), expected);
    }

    #[test]
    fn joins_chunks_up_to_the_limit() {
        check(&[], Ok(b""));
        check(&[Some(b"whole")], Ok(b"whole"));
        check(&[Some(b""), Some(b"in"), Some(b""), Some(b"two")], Ok(b"intwo"));
        check(&[Some(b"three"), Some(b"!")], Err("body_too_large"));
        check(&[Some(b"a"), None], Err("body_broken"));
    }

    #[test]
    fn drains_a_body_that_is_too_large() {
        check(&[Some(b"too large"), Some(b"and more"), Some(b"x")], Err("body_too_large"));
        check(&[Some(b"too large"), None], Err("body_broken"));
        check(&[Some(&vec![0; MAX_DISCARD_BYTES + 6]), None], Err("body_too_large"));
    }
}
