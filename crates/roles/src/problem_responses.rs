//! Problem responses of the API.

use wardroom_edge::{Problem, Status};

/// Runs blocking work of a request on a blocking thread.
pub(crate) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::unavailable("unreadable", error.to_string()))
}

/// Returns the problem of a failed state store.
pub(crate) fn store_problem(error: wardroom_store::Error) -> Problem {
    Problem::unavailable("state_store_unavailable", error.to_string())
}

/// Returns the problem of a persisted workflow that cannot be read.
pub(crate) fn unreadable_workflow(error: impl std::fmt::Display) -> Problem {
    Problem::unavailable("state_unreadable", error.to_string())
}

/// Returns a 409 problem.
pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Status::CONFLICT, code, detail)
}
