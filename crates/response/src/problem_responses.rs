//! Problem responses of the API, of the response and of the other roles.

use wardroom_edge::{Problem, Status};

/// Runs blocking work of a request on a blocking thread.
///
/// # Errors
/// Returns a problem if the work panicked.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::unavailable("unreadable", error.to_string()))
}

/// Returns the problem of a failed state store.
pub fn store_problem(error: wardroom_store::Error) -> Problem {
    Problem::unavailable("state_store_unavailable", error.to_string())
}

/// Returns the problem of a persisted workflow that cannot be read.
pub fn unreadable_workflow(error: impl std::fmt::Display) -> Problem {
    Problem::unavailable("state_unreadable", error.to_string())
}

/// Returns a 409 problem.
pub fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Status::CONFLICT, code, detail)
}
