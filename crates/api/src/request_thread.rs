//! A thread for the slow parts of a request that reads: parsing selectors and expressions, and encoding a response with
//! many series or samples. One thread serves all connections, senders' included, and each of these parts takes up to a
//! tenth of a second.
//!
//! Memory goes back to the thread that allocated it: freeing another thread's takes the lock of its arena, and this
//! thread, which has a low priority, may lose its processor while it holds one. The thread of the connections waited a
//! tenth of a second for it.

use std::sync::{OnceLock, mpsc};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::sync::oneshot;
use wardroom_edge::Problem;

/// Priority of the thread, 0 to 99; corresponds to niceness 15: intake, queries of tables and reads go first.
const PRIORITY: u8 = 13;

type Work = Box<dyn FnOnce() + Send>;

/// The thread's work, in the order of arrival. One part at a time is run, so that a core is left for intake.
static THREAD: OnceLock<Option<mpsc::Sender<Work>>> = OnceLock::new();

/// Runs `part` on the thread, unless the caller leaves before its turn.
///
/// # Errors
/// Returns a problem if the thread could not be started.
pub(crate) async fn run_apart<T: Send + 'static>(part: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let unavailable = || Problem::unavailable("unreadable", "the thread for the slow parts of requests does not run");
    let (result, done) = oneshot::channel();
    let work: Work = Box::new(move || {
        if !result.is_closed() {
            // The caller may have left meanwhile.
            result.send(part()).ok();
        }
    });
    let thread = THREAD.get_or_init(start).as_ref().ok_or_else(unavailable)?;
    thread.send(work).map_err(|_| unavailable())?;
    done.await.map_err(|_| unavailable())
}

/// Parses `text` on the thread; `text` is freed by the caller's.
pub(crate) async fn parse_apart<T: Send + 'static, B: Send + 'static>(
    text: B,
    parse: impl FnOnce(&B) -> T + Send + 'static,
) -> Result<T, Problem> {
    run_apart(move || (parse(&text), text)).await.map(|(parsed, _text)| parsed)
}

/// Returns a JSON response. Called on the thread, which also frees the text.
pub(crate) fn json_response(value: &Value) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let body = Body::from(Bytes::from_owner(OwnText(text)));
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
        }
        Err(error) => Problem::unavailable("unreadable", error.to_string()).into_response(),
    }
}

/// A text that the thread has allocated and frees.
struct OwnText(Vec<u8>);

impl AsRef<[u8]> for OwnText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for OwnText {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.0);
        if let Some(Some(thread)) = THREAD.get() {
            // If the thread has ended, the text is freed here.
            drop(thread.send(Box::new(move || drop(text))));
        }
    }
}

/// Starts the thread; it runs until the process ends.
fn start() -> Option<mpsc::Sender<Work>> {
    let (sender, work) = mpsc::channel::<Work>();
    let run = move || {
        let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
        if !matches!(priority.map(set_current_thread_priority), Ok(Ok(()))) {
            tracing::warn!("lowering the priority of the request thread failed");
        }
        for work in work {
            // A panic costs only its request.
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                tracing::error!("a part of a request panicked");
            }
        }
    };
    let started = std::thread::Builder::new().name("read-request".into()).spawn(run);
    started.inspect_err(|error| tracing::error!(%error, "starting the request thread failed")).ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_text_is_freed_where_it_was_allocated() {
        let parsed = parse_apart(vec![1, 2, 3], |text| (text.len(), std::thread::current().name().map(str::to_owned)));
        assert_eq!(parsed.await.unwrap(), (3, Some("read-request".to_owned())));
        let response = run_apart(|| json_response(&serde_json::json!({ "a": [1, 2] }))).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(&text[..], br#"{"a":[1,2]}"#);
        drop(text);
        run_apart(|| ()).await.unwrap();
    }

    /// A slow part does not block the thread that serves connections, and runs alone; a panic ends no other.
    #[tokio::test]
    async fn a_slow_part_blocks_no_connection_and_runs_alone() {
        let (release, wait) = mpsc::channel::<()>();
        let slow = tokio::spawn(run_apart(move || wait.recv_timeout(Duration::from_secs(10)).is_ok()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let panics = tokio::spawn(run_apart(|| assert_eq!(1, 2)));
        let next = tokio::spawn(run_apart(|| 7));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!slow.is_finished() && !next.is_finished());
        release.send(()).unwrap();
        assert!(slow.await.unwrap().unwrap());
        assert!(panics.await.unwrap().is_err());
        assert_eq!(next.await.unwrap().unwrap(), 7);
    }
}
