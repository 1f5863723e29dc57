//! Errors of the store.

use wardroom_domain::IncidentState;

/// SQLite's result codes for a damaged file: `SQLITE_CORRUPT` and `SQLITE_NOTADB`.
const DAMAGED_FILE_CODES: [u32; 2] = [11, 26];
/// PostgreSQL's codes for damaged data and a damaged index.
const POSTGRES_DAMAGED_CODES: [&str; 2] = ["XX001", "XX002"];

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be read or written at the moment.
    #[error("state store unavailable: {0}")]
    Unavailable(String),
    /// The database file is not intact.
    #[error("the state database is damaged: {0}; stop the server and restore a backup")]
    DamagedFile(String),
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
    /// An effect was finished by a worker that no longer has its lease: another one performs it.
    #[error("the lease of effect {0} is over; another worker performs it")]
    StaleLease(String),
    /// What was asked for is not possible with this database.
    #[error("{0}")]
    Unsupported(String),
    /// The requested row does not exist.
    #[error("{0} does not exist")]
    Unknown(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().is_some_and(is_damage) {
            Self::DamagedFile(error.to_string())
        } else {
            Self::Unavailable(error.to_string())
        }
    }
}

/// Whether the database says that its files are damaged.
fn is_damage(error: &(dyn sqlx::error::DatabaseError + 'static)) -> bool {
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        return POSTGRES_DAMAGED_CODES.contains(&code.as_ref());
    }
    // The low byte of an extended result code is the primary one.
    code.parse::<u32>().is_ok_and(|code| DAMAGED_FILE_CODES.contains(&(code & 0xff)))
}

impl Error {
    pub(crate) fn damaged(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Damaged { what: what.into(), detail: detail.to_string() }
    }
}
