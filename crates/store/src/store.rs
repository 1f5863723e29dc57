//! The database handle: opening, copying, checking, transactions and change notification.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::watch;

use crate::error::Error;

/// Timeout of a statement that waits for another writer's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: u32 = 2;

/// Returns the path of the database in a data folder.
pub fn database_path(data: &Path) -> PathBuf {
    data.join("state").join("wardroom.db")
}

/// Every schema version, in order. The database records the checksum of each, so a released migration never changes.
fn migrator() -> Migrator {
    let first = include_str!("../migrations/0001_first.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "first".into(), MigrationType::Simple, first, false)])
}

/// The open database; cheap to clone. Clones share the connections and the subscribers.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: SqlitePool,
    /// Number of committed incident changes since the store was opened.
    incident_changes: watch::Sender<u64>,
}

impl Store {
    /// Opens or creates the database file and migrates its schema to the current version.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, is damaged, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| Error::Unavailable(error.to_string()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // The sandboxed process has no folder for temporary files.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(BUSY_TIMEOUT);
        let store = Self::connect(options).await?;
        let migrated = migrator().run(&store.pool).await;
        migrated.map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(store)
    }

    /// Opens the database file read-only: nothing is created or migrated.
    ///
    /// # Errors
    /// Returns an error if the file does not exist or is damaged.
    pub async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        Self::connect(options).await
    }

    async fn connect(options: SqliteConnectOptions) -> Result<Self, Error> {
        let pool = SqlitePoolOptions::new().max_connections(MAX_CONNECTIONS).connect_with(options).await?;
        Ok(Self { pool, incident_changes: watch::Sender::new(0) })
    }

    /// Writes a consistent copy of the database to a file that does not exist yet.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the file cannot be written.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        let path = path.to_str().ok_or_else(|| Error::Unavailable(format!("{} is not UTF-8", path.display())))?;
        sqlx::query("VACUUM INTO ?").bind(path).execute(&self.pool).await?;
        Ok(())
    }

    /// Checks every page of the file. Returns the first defect, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn integrity_check(&self) -> Result<Option<String>, Error> {
        let result: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&self.pool).await?;
        Ok((result != "ok").then_some(result))
    }

    /// Finishes running statements and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Returns a receiver that changes after every committed change of an incident by this process; its value counts
    /// them. The first check reports a change. A commit that ended before [`watch::Receiver::mark_unchanged`] is seen
    /// by any read that starts after it.
    pub fn subscribe_incidents(&self) -> watch::Receiver<u64> {
        let mut receiver = self.incident_changes.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Begins a write transaction.
    pub(crate) async fn begin_write(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, Error> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Commits a transaction that changed an incident and notifies the subscribers. Runs as its own task: a caller that
    /// is cancelled during the commit must not suppress the notification.
    pub(crate) async fn commit_incident_change(
        &self,
        transaction: sqlx::Transaction<'static, sqlx::Sqlite>,
    ) -> Result<(), Error> {
        let changes = self.incident_changes.clone();
        let commit = tokio::spawn(async move {
            let committed = transaction.commit().await;
            changes.send_modify(|count| *count += 1);
            committed
        });
        Ok(commit.await.map_err(|error| Error::Unavailable(error.to_string()))??)
    }
}
