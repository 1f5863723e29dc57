//! What a database file has, before it is opened for writing: whether it is a server's, and of which data folder.

use std::path::Path;

use crate::database::{Database, query};
use crate::error::Error;
use crate::store::Store;

/// What a database file has. All is `false` or `None` if the file does not exist or has other tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseContents {
    /// Whether it has the tables of this program.
    pub has_tables: bool,
    /// Whether there is a token; revoked ones count.
    pub has_tokens: bool,
    /// Whether the audit log has an entry.
    pub has_audit_entries: bool,
    /// Whether the audit log says that a token was created. Tokens are never deleted.
    pub has_created_tokens: bool,
    /// The id of the data folder; older versions had none.
    pub data_folder_id: Option<String>,
}

impl Store {
    /// Returns what a database file has. Nothing is created or migrated.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub async fn contents(path: &Path) -> Result<DatabaseContents, Error> {
        // SQLite takes an empty file for a database, but cannot open it read-only with a write-ahead log beside it.
        if !std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            return Ok(DatabaseContents::default());
        }
        let store = Self::open_read_only(path).await?;
        let contents = store.read_contents().await;
        store.close().await;
        contents
    }

    /// Returns what the open database has.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn read_contents(&self) -> Result<DatabaseContents, Error> {
        let names = match &self.database {
            Database::Sqlite(_) => "SELECT name FROM sqlite_master WHERE type = 'table'",
            Database::Postgres(_) => {
                "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = current_schema()"
            }
        };
        let rows = query(names).fetch_all(&self.database).await?;
        let tables: Vec<String> = rows.iter().map(|row| row.get("name")).collect::<Result<_, _>>()?;
        let has = |name: &str| tables.iter().any(|table| table == name);
        if !["_sqlx_migrations", "tokens", "audit"].into_iter().all(has) {
            return Ok(DatabaseContents::default());
        }
        let exists =
            async |select: &'static str| query(select).fetch_optional(&self.database).await.map(|row| row.is_some());
        Ok(DatabaseContents {
            has_tables: true,
            has_tokens: exists("SELECT id FROM tokens LIMIT 1").await?,
            has_audit_entries: exists("SELECT sequence FROM audit LIMIT 1").await?,
            // The stored text is canonical JSON.
            has_created_tokens: exists(
                "SELECT sequence FROM audit WHERE body LIKE '%\"action\":\"create_token\"%' LIMIT 1",
            )
            .await?,
            data_folder_id: if has("data_folder") { Some(self.data_folder_id().await?) } else { None },
        })
    }

    /// Returns the id of the data folder that the database belongs to.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn data_folder_id(&self) -> Result<String, Error> {
        let row = query("SELECT folder_id FROM data_folder WHERE id = 1").fetch_one(&self.database).await?;
        Ok(row.get("folder_id")?)
    }

    /// Replaces the id of the data folder that the database belongs to.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn set_data_folder_id(&self, id: &str) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        let update = query("UPDATE data_folder SET folder_id = $1 WHERE id = 1");
        self.record_write(update.bind(id).execute(&mut transaction).await)?;
        self.commit(transaction).await
    }

    /// Moves what is in SQLite's write-ahead log into the database file, so that a plain copy of the file has it.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        // While another process reads, SQLite leaves the rest in the log; that is not an error.
        if let Database::Sqlite(pool) = &self.database {
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(pool).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::audit::example_entry;

    #[tokio::test]
    async fn a_copy_of_the_file_alone_has_what_was_written_before_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("wardroom.db"), dir.path().join("copy.db"));
        assert_eq!(Store::contents(&path).await.unwrap(), DatabaseContents::default());
        let store = Store::open(&path).await.unwrap();
        let entry = example_entry();
        store.append_audit(&entry).await.unwrap();
        std::fs::copy(&path, &copy).unwrap();
        assert!(!Store::contents(&copy).await.unwrap().has_audit_entries, "it is in the write-ahead log only");
        std::fs::remove_file(&copy).unwrap();
        store.checkpoint().await.unwrap();
        std::fs::copy(&path, &copy).unwrap();
        let expected = DatabaseContents {
            has_tables: true,
            has_tokens: false,
            has_audit_entries: true,
            has_created_tokens: true,
            data_folder_id: Some(store.data_folder_id().await.unwrap()),
        };
        assert_eq!(Store::contents(&copy).await.unwrap(), expected);
    }
}
