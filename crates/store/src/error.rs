//! How the store fails.

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be read or written now.
    #[error("state store unavailable: {0}")]
    Unavailable(String),
    /// A row holds what it must not hold: damage, or a newer version's data.
    #[error("state store holds {what} that this build cannot read: {detail}")]
    Damaged {
        /// Which row.
        what: String,
        /// Why.
        detail: String,
    },
    /// What was asked for is not there.
    #[error("{0} is unknown")]
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
