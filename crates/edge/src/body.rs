//! Reading a body within its limits of size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::{Config, Problem};

/// What is read beyond the limit and thrown away, in bytes. A sender that is answered while it still sends may see
/// a broken connection instead of the answer, and sends the same again; one that is told "too large" does not.
const BEYOND: usize = 64 << 20;
/// Room that a body gets on its sender's word alone, in bytes.
const FIRST_ROOM: usize = 1 << 20;

/// Reads a whole body.
///
/// # Errors
/// 413 over the size limit, 503 over the time limit, 400 if the connection breaks.
pub async fn read_body(body: Body, config: &Config) -> Result<Bytes, Problem> {
    let reading = collect(body, config.max_body_bytes);
    // 408 would say it better, and Prometheus and OpenTelemetry drop the data on it.
    tokio::time::timeout(Duration::from_secs(config.body_timeout_seconds), reading).await.unwrap_or_else(|_| {
        let detail = "the body did not arrive in time; send it again, or see edge.body-timeout-seconds";
        Err(Problem::unavailable("body_timeout", detail))
    })
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let expected = usize::try_from(HttpBody::size_hint(&body).lower()).unwrap_or(usize::MAX);
    // A body that comes in one piece is not copied.
    let (mut first, mut whole, mut size) = (Bytes::new(), BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Problem::bad_request("body_broken", format!("the body could not be read: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        let before = size;
        size = size.saturating_add(piece.len());
        if size > limit.saturating_add(BEYOND) {
            break;
        } else if size > limit {
            (first, whole) = (Bytes::new(), BytesMut::new());
        } else if before == 0 {
            first = piece;
        } else {
            if whole.is_empty() {
                whole.reserve(expected.min(FIRST_ROOM).max(size));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
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

    /// A body in pieces; `None` breaks the connection.
    struct Pieces(VecDeque<Option<Vec<u8>>>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| match piece {
                Some(piece) => Ok(Frame::data(piece.into())),
                None => Err(std::io::ErrorKind::ConnectionReset.into()),
            }))
        }
    }

    #[track_caller]
    fn check(pieces: &[Option<&[u8]>], expected: Result<&[u8], &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let body = Body::new(Pieces(pieces.iter().map(|piece| piece.map(<[u8]>::to_vec)).collect()));
        let config = Config { max_body_bytes: 5, ..Config::default() };
        let read = runtime.block_on(read_body(body, &config));
        assert_eq!(read.as_deref().map_err(Problem::code), expected);
    }

    #[test]
    fn pieces_are_put_together_up_to_the_limit() {
        check(&[], Ok(b""));
        check(&[Some(b"whole")], Ok(b"whole"));
        check(&[Some(b""), Some(b"in"), Some(b""), Some(b"two")], Ok(b"intwo"));
        check(&[Some(b"three"), Some(b"!")], Err("body_too_large"));
        check(&[Some(b"a"), None], Err("body_broken"));
    }

    #[test]
    fn what_is_too_much_is_read_to_its_end() {
        check(&[Some(b"too large"), Some(b"and more"), Some(b"x")], Err("body_too_large"));
        check(&[Some(b"too large"), None], Err("body_broken"));
        check(&[Some(&vec![0; BEYOND + 6]), None], Err("body_too_large"));
    }
}
