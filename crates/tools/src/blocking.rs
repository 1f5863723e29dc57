//! Runs asynchronous client libraries from blocking tools, with a time limit.
//!
//! A server that stops answering, without closing its connection, must not hold a tool indefinitely: whatever a library
//! does, the call ends at its limit. The work runs on a thread of its own, so that a caller may itself be inside of an
//! asynchronous runtime.

use std::time::Duration;

use wardroom_respond::ToolError;

/// Runs work to its end, or until the limit.
///
/// # Errors
/// Returns the work's error, or [`ToolError::Unavailable`] if it does not end in time.
pub(crate) fn run_local<T: Send>(
    limit: Duration,
    target: &str,
    work: impl AsyncFnOnce() -> Result<T, ToolError> + Send,
) -> Result<T, ToolError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ToolError::Unavailable(format!("{target}: no runtime: {error}")))?;
        let late = || ToolError::Unavailable(format!("{target} did not answer within {} s", limit.as_secs_f32()));
        let result = runtime.block_on(async { tokio::time::timeout(limit, Box::pin(work())).await });
        // Tasks of a connection that hangs are not waited for.
        runtime.shutdown_background();
        result.map_err(|_| late()).flatten()
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(run);
        thread.join().unwrap_or_else(|_| Err(ToolError::Unavailable(format!("{target}: the client failed"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_its_limit_also_inside_of_a_runtime() {
        let never = || {
            run_local(Duration::from_millis(20), "db", async || std::future::pending::<Result<(), ToolError>>().await)
        };
        assert!(matches!(never(), Err(ToolError::Unavailable(text)) if text.contains("db did not answer")));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(async { never() }).is_err());
        assert_eq!(run_local(Duration::from_secs(5), "db", async || Ok(7)), Ok(7));
    }
}
