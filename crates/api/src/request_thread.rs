//! A thread for the slow parts of a request that reads: parsing selectors and expressions, and encoding a response with
//! many series or samples. One thread serves all connections, senders' included, and each of these parts takes up to a
//! tenth of a second.

use std::sync::{OnceLock, mpsc};

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
