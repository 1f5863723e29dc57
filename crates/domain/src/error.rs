//! Classification of failures by what the caller can do about them (ADR 015).

/// A failure of a port, a store or a tool, classified by remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Temporary: retry later.
    #[error("{0}")]
    Retryable(String),
    /// Permanent: the request will never be accepted unchanged.
    #[error("{detail}")]
    Rejected {
        /// Stable reason for metrics and problem documents.
        reason: &'static str,
        /// Explanation: the field and the remedy.
        detail: String,
    },
    /// Exceeds a limit that an administrator can raise.
    #[error("{0}")]
    Quota(String),
    /// An operator must act on this machine.
    #[error("{0}")]
    Fatal(String),
}
