//! Reads a request body within limits of size and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{StatusCode, Version, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use wardroom_domain::Identity;

use crate::budget::{Budget, BudgetPermit};
use crate::config::Config;
use crate::problem::Problem;

/// Maximum number of bytes over the limit that are read and discarded. A sender whose connection is closed while it is
/// still sending may see a reset instead of the response and retry the same body; after a 413 it does not retry.
const MAX_DISCARD_BYTES: usize = 64 << 20;
/// Bytes that are read at a time of a body that is too large or no telemetry. One thread serves all connections, and
/// those that send telemetry should not wait for such bodies.
const PART_BYTES: usize = 256 << 10;
/// Pause after such a part, during which no other such body goes on: all of them get 64 MB a second at most.
const PART_PAUSE: Duration = Duration::from_millis(4);
/// Maximum capacity allocated from `Content-Length` alone, in bytes.
const INITIAL_CAPACITY_BYTES: usize = 1 << 20;

/// Maximum size of a body that is no telemetry, in bytes.
const MAX_SMALL_BODY_BYTES: usize = 2 << 20;
/// Memory budget of all bodies that are no telemetry, in bytes.
pub(crate) const SMALL_BODIES_BUDGET_BYTES: usize = 32 << 20;

/// One memory budget for all bodies of a kind that are being received or processed; cheap to clone.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    budget: Budget,
    /// The turn of bodies that are read in parts.
    turn: Arc<Semaphore>,
}

impl BodyBudget {
    /// Creates a budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        Self { budget: Budget::new(total), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// A received body with its reservation of the budget.
#[derive(Debug)]
pub struct ReceivedBody {
    /// The body, or the part of it that is the message.
    pub bytes: Bytes,
    /// Released when the request has been processed.
    pub permit: BudgetPermit,
}

/// Reads a whole body of telemetry within the sender's share of the budget.
///
/// # Errors
/// Returns 413 over the size limit, 503 over the time limit or the budget and 400 if the connection is lost.
pub async fn read_body(
    head: &Parts,
    body: Body,
    config: &Config,
    budget: &BodyBudget,
    sender: &Identity,
) -> Result<ReceivedBody, Problem> {
    let limit = Limit {
        bytes: config.max_body_bytes,
        remedy: "send smaller batches or raise edge.max-body-bytes",
        budget_remedy: "retry, or raise edge.body-budget-bytes",
        in_parts: false,
        turn: &budget.turn,
    };
    let body = refuse_announced(head, body, config, limit)?;
    within_time(config, collect(body, limit, budget.budget.of_sender(sender).permit())).await
}

/// Reads a whole body that is no telemetry (a query, a decision, a form) within the caller's share of the budget.
///
/// # Errors
/// Returns 413 over the size limit, 503 over the time limit or the budget and 400 if the connection is lost.
pub(crate) async fn read_small_body(
    head: &Parts,
    body: Body,
    config: &Config,
    budget: &BodyBudget,
    caller: &Identity,
) -> Result<ReceivedBody, Problem> {
    let bytes = MAX_SMALL_BODY_BYTES.min(config.max_body_bytes);
    let limit =
        Limit { bytes, remedy: "send a shorter request", budget_remedy: "retry", in_parts: true, turn: &budget.turn };
    let body = refuse_announced(head, body, config, limit)?;
    within_time(config, collect(body, limit, budget.budget.of_sender(caller).permit())).await
}

async fn within_time<T>(config: &Config, reading: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    // Not 408: Prometheus and OpenTelemetry senders drop the data on 408.
    tokio::time::timeout(Duration::from_secs(config.body_timeout_seconds), reading).await.unwrap_or_else(|_| {
        let detail = "timeout while reading the body; retry, or raise edge.body-timeout-seconds";
        Err(Problem::unavailable("body_timeout", detail))
    })
}

/// The limit of a body, and what to do about it and about an exhausted budget.
#[derive(Clone, Copy, Debug)]
struct Limit<'a> {
    bytes: usize,
    remedy: &'static str,
    budget_remedy: &'static str,
    /// Whether to pause after each part.
    in_parts: bool,
    /// Held during the pause.
    turn: &'a Arc<Semaphore>,
}

impl Limit<'_> {
    fn too_large(&self) -> Problem {
        let detail = format!("the body is larger than {} bytes; {}", self.bytes, self.remedy);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }
}

/// Refuses a body at once whose announced length exceeds the limit. What the sender sends nevertheless is read beside
/// the response, so that it gets that instead of a reset.
fn refuse_announced(head: &Parts, body: Body, config: &Config, limit: Limit<'_>) -> Result<Body, Problem> {
    let announced = usize::try_from(HttpBody::size_hint(&body).lower()).unwrap_or(usize::MAX);
    if announced <= limit.bytes {
        return Ok(body);
    }
    // HTTP/2 cancels one request without the others, and who asks for permission sends nothing.
    let sends_rest = head.version < Version::HTTP_2 && !head.headers.contains_key(header::EXPECT);
    if sends_rest && announced <= limit.bytes.saturating_add(MAX_DISCARD_BYTES) {
        let (turn, timeout) = (Arc::clone(limit.turn), Duration::from_secs(config.body_timeout_seconds));
        tokio::spawn(async move {
            let _timed_out = tokio::time::timeout(timeout, discard(body, &turn)).await;
        });
    }
    Err(limit.too_large())
}

/// Reads a body to its end, in parts.
async fn discard(mut body: Body, turn: &Semaphore) {
    let mut in_part = 0;
    while let Some(Ok(frame)) = body.frame().await {
        in_part += frame.data_ref().map_or(0, Bytes::len);
        if in_part >= PART_BYTES {
            in_part = 0;
            pause(turn).await;
        }
    }
}

/// Waits for the turn, then for the pause after a part.
async fn pause(turn: &Semaphore) {
    // Never closed.
    let _turn = turn.acquire().await.ok();
    tokio::time::sleep(PART_PAUSE).await;
}

async fn collect(mut body: Body, limit: Limit<'_>, mut permit: BudgetPermit) -> Result<ReceivedBody, Problem> {
    let expected = usize::try_from(HttpBody::size_hint(&body).lower()).unwrap_or(usize::MAX);
    let max_read = limit.bytes.saturating_add(MAX_DISCARD_BYTES);
    // A body in one chunk is not copied.
    let (mut first, mut whole, mut size, mut in_part) = (Bytes::new(), BytesMut::new(), 0_usize, 0);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::bad_request("body_broken", format!("reading the body failed: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let before = size;
        size = size.saturating_add(chunk.len());
        if size > max_read {
            break;
        }
        let is_too_large = size > limit.bytes;
        in_part += if is_too_large || limit.in_parts { chunk.len() } else { 0 };
        if in_part >= PART_BYTES {
            in_part = 0;
            pause(limit.turn).await;
        }
        if is_too_large {
            (first, whole) = (Bytes::new(), BytesMut::new());
            continue;
        }
        permit.grow(chunk.len()).map_err(|_| {
            let detail = format!("bodies being received use up the memory budget; {}", limit.budget_remedy);
            Problem::unavailable("body_budget", detail)
        })?;
        if before == 0 {
            first = chunk;
        } else {
            if whole.is_empty() {
                whole.reserve(expected.min(INITIAL_CAPACITY_BYTES).max(size));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&chunk);
        }
    }
    if size > limit.bytes {
        return Err(limit.too_large());
    }
    Ok(ReceivedBody { bytes: if whole.is_empty() { first } else { whole.freeze() }, permit })
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

    fn head() -> Parts {
        axum::http::Request::new(()).into_parts().0
    }

    fn sender() -> Identity {
        let role = wardroom_domain::AccessRole::Sender;
        Identity { tenant: wardroom_domain::TenantId::main(), principal: wardroom_domain::Principal::anonymous(), role }
    }

    #[test]
    fn bodies_beyond_the_budget_are_refused_for_now() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (config, budget) = (Config::default(), BodyBudget::new(10));
        let read = || runtime.block_on(read_body(&head(), Body::from("seven by"), &config, &budget, &sender()));
        let first = read().unwrap();
        assert_eq!(read().map(|_| ()).unwrap_err().code(), "body_budget");
        drop(first);
        assert!(read().is_ok());
    }

    #[test]
    fn a_body_that_never_ends_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let endless = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let config = Config { body_timeout_seconds: 0, ..Config::default() };
        let (head, budget, sender) = (head(), BodyBudget::new(10), sender());
        let small = runtime.block_on(read_small_body(&head, endless(), &config, &budget, &sender));
        assert_eq!(small.map(|_| ()).unwrap_err().code(), "body_timeout");
        let telemetry = runtime.block_on(read_body(&head, endless(), &config, &budget, &sender));
        assert_eq!(telemetry.map(|_| ()).unwrap_err().code(), "body_timeout");
    }

    #[track_caller]
    fn check(chunks: &[Option<&[u8]>], expected: Result<&[u8], &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let body = Body::new(Chunks(chunks.iter().map(|chunk| chunk.map(<[u8]>::to_vec)).collect()));
        let config = Config { max_body_bytes: 5, ..Config::default() };
        let read = runtime.block_on(read_body(&head(), body, &config, &BodyBudget::new(100), &sender()));
        assert_eq!(read.as_ref().map(|body| &*body.bytes).map_err(Problem::code), expected);
    }

    #[test]
    fn joins_chunks_up_to_the_limit() {
        check(&[], Ok(b""));
        check(&[Some(b"whole")], Ok(b"whole"));
        check(&[Some(b""), Some(b"in"), Some(b""), Some(b"two")], Ok(b"intwo"));
        check(&[Some(b"three"), Some(b"!")], Err("body_too_large"));
        check(&[Some(b"a"), None], Err("body_broken"));
    }

    /// A body that announces its length and never comes.
    struct Announced(u64);

    impl HttpBody for Announced {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.0)
        }
    }

    #[test]
    fn a_body_that_announces_too_much_is_refused_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let config = Config { max_body_bytes: 5, body_timeout_seconds: 1, ..Config::default() };
        let announced = [(MAX_DISCARD_BYTES as u64 + 6, "body_too_large"), (6, "body_too_large"), (5, "body_timeout")];
        for (bytes, code) in announced {
            let (body, budget) = (Body::new(Announced(bytes)), BodyBudget::new(100));
            let read = runtime.block_on(read_small_body(&head(), body, &config, &budget, &sender()));
            assert_eq!(read.map(|_| ()).unwrap_err().code(), code, "{bytes}");
        }
    }

    #[test]
    fn nothing_is_kept_of_a_body_that_announces_too_much() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // The budget is smaller than the limit: whatever is kept exceeds it.
        let (config, budget) = (Config { max_body_bytes: 5, ..Config::default() }, BodyBudget::new(1));
        let read =
            |bytes: &'static str| runtime.block_on(read_body(&head(), Body::from(bytes), &config, &budget, &sender()));
        assert_eq!(read("too large").map(|_| ()).unwrap_err().code(), "body_too_large");
        assert_eq!(read("whole").map(|_| ()).unwrap_err().code(), "body_budget");
    }

    #[test]
    fn drains_a_body_that_is_too_large() {
        check(&[Some(b"too large"), Some(b"and more"), Some(b"x")], Err("body_too_large"));
        check(&[Some(b"too large"), None], Err("body_broken"));
        check(&[Some(&vec![0; MAX_DISCARD_BYTES + 6]), None], Err("body_too_large"));
    }
}
