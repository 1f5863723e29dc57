//! Errors of the response role.

/// The executor's response does not belong to the request.
pub const OTHER_ANSWER: &str =
    "the executor answered another request; restart `wardroom serve`, so that both are of one version";

/// Why a step of the response failed. Logged, and retried at the next tick.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RespondError {
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    #[error(transparent)]
    Executor(#[from] wardroom_executor::ExecutorUnavailable),
    #[error(transparent)]
    Workflow(#[from] wardroom_respond::WorkflowError),
    #[error(transparent)]
    Unreadable(#[from] wardroom_respond::WorkflowReadError),
    #[error("workflow JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("runbooks: {0}")]
    Knowledge(#[from] wardroom_knowledge::Error),
    #[error(transparent)]
    Weights(#[from] wardroom_diagnose::WeightsError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Panic(String),
}
