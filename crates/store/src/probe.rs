//! Tests whether the database works: writes, reads and checks it, and records the outcome.

use sqlx::{Connection, SqliteConnection, SqlitePool};

use crate::database::{Database, Transaction, query};
use crate::error::Error;
use crate::health::{OpenedFile, Operation};
use crate::store::Store;

impl Store {
    /// Returns why the database does not work at the moment, or `None` if it does.
    pub fn error(&self) -> Option<String> {
        self.health.error()
    }

    /// Tests whether the database can be written and is still the file that was opened; [`Store::error`] tells.
    pub async fn probe(&self) {
        // The outcomes are recorded; no caller waits for them.
        drop(self.health.record(Operation::FindFile, self.file.as_ref().map_or(Ok(()), OpenedFile::verify)));
        drop(self.write_probe().await);
    }

    /// Checks all pages of SQLite's file; [`Store::error`] tells. Reads the whole file. PostgreSQL checks its own.
    pub async fn check_pages(&self) {
        let Database::Sqlite(pool) = &self.database else { return };
        let checked = match Self::quick_check(pool).await {
            Ok(result) if result == "ok" => Ok(()),
            Ok(defect) => Err(Error::DamagedFile(defect)),
            Err(error) => Err(error.into()),
        };
        drop(self.health.record(Operation::CheckPages, checked));
    }

    /// Runs the check on a connection of its own: the others have pages in memory and would not read them again.
    async fn quick_check(pool: &SqlitePool) -> Result<String, sqlx::Error> {
        let options = (*pool.connect_options()).clone().create_if_missing(false).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let result = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
        connection.close().await?;
        result
    }

    /// Commits a write that changes nothing: SQLite's user version, which is not used, or a row to what it is.
    async fn write_probe(&self) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        let written = match &mut transaction {
            Transaction::Sqlite(transaction) => {
                sqlx::query("PRAGMA user_version = 0").execute(&mut **transaction).await.map(drop)
            }
            Transaction::Postgres(_) => {
                let update = "UPDATE data_folder SET folder_id = folder_id WHERE id = 1";
                query(update).execute(&mut transaction).await.map(drop)
            }
        };
        self.health.record(Operation::Write, written)?;
        self.commit(transaction).await
    }
}
