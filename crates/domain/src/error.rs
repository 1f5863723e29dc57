//! How a failure is told apart by what the caller can do about it (decision D15).

/// A failure of a port, a store or a tool, by remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Comes right by itself: try again later.
    #[error("{0}")]
    Retryable(String),
    /// Will never be accepted as it is; `reason` is a stable word for metrics.
    #[error("{detail}")]
    Rejected {
        /// A stable word for metrics and problem documents.
        reason: &'static str,
        /// For a person: the field and the remedy.
        detail: String,
    },
    /// Over a limit that an administrator can raise.
    #[error("{0}")]
    Quota(String),
    /// A person has to act on this machine.
    #[error("{0}")]
    Fatal(String),
}
