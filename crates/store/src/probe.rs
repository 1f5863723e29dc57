//! Tests whether the database works: writes, reads and checks it, and records the outcome.

use sqlx::{Connection, SqliteConnection};

use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

impl Store {
    /// Returns why the database does not work at the moment, or `None` if it does.
    pub fn error(&self) -> Option<String> {
        self.health.error()
    }

    /// Tests whether the database can be written and is still the file that was opened; [`Store::error`] tells.
    pub async fn probe(&self) {
        // The outcomes are recorded; no caller waits for them.
        drop(self.health.record(Operation::FindFile, self.file.verify()));
        drop(self.write_probe().await);
    }

    /// Checks all pages of the file; [`Store::error`] tells. Reads the whole file.
    pub async fn check_pages(&self) {
        let checked = match self.quick_check().await {
            Ok(result) if result == "ok" => Ok(()),
            Ok(defect) => Err(Error::DamagedFile(defect)),
            Err(error) => Err(error.into()),
        };
        drop(self.health.record(Operation::CheckPages, checked));
    }

    /// Runs the check on a connection of its own: the others have pages in memory and would not read them again.
    async fn quick_check(&self) -> Result<String, sqlx::Error> {
        let options = (*self.pool.connect_options()).clone().create_if_missing(false).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let result = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
        connection.close().await?;
        result
    }

    /// Commits a write that changes nothing: the user version, which is not used.
    async fn write_probe(&self) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        let written = sqlx::query("PRAGMA user_version = 0").execute(&mut *transaction).await;
        self.health.record(Operation::Write, written)?;
        self.commit(transaction).await
    }
}
