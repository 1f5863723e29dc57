//! Relational state: tokens, incidents with their history, anomalies, and the audit book.
//!
//! SQLite in WAL mode with `synchronous=FULL`: a committed transaction survives a power cut. Every
//! transition of an incident, its row of history and its audit entry are one transaction, so no crash
//! can leave one without the others. Several processes may open the file at once (`wardroom token
//! create` works beside a running server).
//!
//! Nothing here knows what an incident's workflow means: it is JSON that its owner versions.
//!
//! There is no trait here: the SQL stays in the subset that PostgreSQL shares, and the second dialect
//! comes with the issue that runs it.

#![forbid(unsafe_code)]

mod anomalies;
mod audit;
mod changes;
mod checked;
mod error;
mod incidents;
mod journal;
mod renew;
mod tokens;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

pub use changes::Changes;
pub use checked::Checked;
pub use error::Error;
pub use incidents::{HistoryRow, IncidentRow, Transition};
pub use journal::{Journal, JournalError, Left, Mark, Retired, Stream};
pub use renew::renew;
pub use tokens::{NewToken, TokenRow, database};

/// The open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens or creates the database file and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| Error::Unavailable(error.to_string()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // The confined process has no folder for temporary files.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
        sqlx::migrate!("./migrations").run(&pool).await.map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Self { pool })
    }

    /// Opens it only to read, as it is: nothing is created, and an older schema stays so.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub async fn look(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(10));
        Ok(Self { pool: SqlitePoolOptions::new().max_connections(2).connect_with(options).await? })
    }

    /// Writes a copy of all of it, as of one moment, to a file that does not exist yet.
    ///
    /// # Errors
    /// The store's, or the file cannot be written.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        let path = path.to_str().ok_or_else(|| Error::Unavailable(format!("{} is not UTF-8", path.display())))?;
        sqlx::query("VACUUM INTO ?").bind(path).execute(&self.pool).await?;
        Ok(())
    }

    /// Whether every page of the file is sound; what is wrong if not.
    ///
    /// # Errors
    /// The store's.
    pub async fn check(&self) -> Result<Option<String>, Error> {
        let verdict: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&self.pool).await?;
        Ok((verdict != "ok").then_some(verdict))
    }

    /// Finishes what is running and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn write(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, Error> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}
