//! Parses selectors and expressions on a thread of its own: one thread serves all connections, senders' included, and
//! compiling the patterns of one request takes up to a tenth of a second.

use tokio::sync::Semaphore;
use wardroom_edge::Problem;

/// One request at a time is parsed, so that a core is left for intake; the others wait in the order of arrival.
static PARSER: Semaphore = Semaphore::const_new(1);

/// Runs `parse` once no other request is being parsed.
///
/// # Errors
/// Returns a problem if the server is shutting down.
pub(crate) async fn parse_apart<T: Send + 'static>(parse: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let unavailable = |detail: String| Problem::unavailable("unreadable", detail);
    let permit = PARSER.acquire().await.map_err(|error| unavailable(error.to_string()))?;
    // The permit ends with the work, not with a caller that leaves.
    let parsed = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        parse()
    });
    parsed.await.map_err(|error| unavailable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A slow parse delays neither the thread that serves connections, nor goes on beside another.
    #[tokio::test]
    async fn parsing_blocks_no_connection_and_runs_alone() {
        let (release, wait) = mpsc::channel::<()>();
        let slow = tokio::spawn(parse_apart(move || wait.recv_timeout(Duration::from_secs(10)).is_ok()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = tokio::spawn(parse_apart(|| 7));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!slow.is_finished() && !next.is_finished());
        release.send(()).unwrap();
        assert!(slow.await.unwrap().unwrap());
        assert_eq!(next.await.unwrap().unwrap(), 7);
    }
}
