//! Errors of the store.

use wardroom_domain::IncidentState;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be read or written at the moment.
    #[error("state store unavailable: {0}")]
    Unavailable(String),
    /// A row cannot be decoded: it is damaged or was written by a newer version.
    #[error("state store: {what} cannot be read by this build: {detail}")]
    Damaged {
        /// The row.
        what: String,
        /// The cause.
        detail: String,
    },
    /// The transition is not in the transition table: a defect of the caller.
    #[error("transition from {from} to {to} is not allowed")]
    InvalidTransition {
        /// State before the transition.
        from: IncidentState,
        /// State after the transition.
        to: IncidentState,
    },
    /// The requested row does not exist.
    #[error("{0} does not exist")]
    Unknown(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Error {
    pub(crate) fn damaged(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Damaged { what: what.into(), detail: detail.to_string() }
    }
}
