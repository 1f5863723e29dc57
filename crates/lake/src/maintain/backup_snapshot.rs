//! Lists the files of a backup and verifies a restored one.
//!
//! Files of a table never change: a commit, checkpoint or data file exists or does not. The newest version of a table
//! is therefore its log up to that version and the data files that this version names, whatever is written meanwhile.
//! `_last_checkpoint`, the only file that is overwritten, is a hint that readers can do without.

use crate::error::Error;
use crate::lake::Lake;
use crate::table::snapshot_files::SnapshotFile;

/// The newest version of a table, of all tenants together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSnapshot {
    /// Table name.
    pub table: &'static str,
    /// Version of the Delta table.
    pub version: u64,
    /// Number of files.
    pub files: usize,
    /// Number of rows.
    pub rows: u64,
}

impl Lake {
    /// Lists every file that a backup of the tables needs.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read or is on an object store.
    pub async fn snapshot_files(&self) -> Result<Vec<SnapshotFile>, Error> {
        let mut snapshot_files = Vec::new();
        for table in self.tables() {
            snapshot_files.extend(table.lock().await.snapshot_files().await?);
        }
        Ok(snapshot_files)
    }

    /// Checks that every data file exists in full size, and describes the tables.
    ///
    /// # Errors
    /// Returns an error if a file is missing or has another size, or if a table cannot be read.
    pub async fn verify_snapshot(&self) -> Result<Vec<TableSnapshot>, Error> {
        let mut found = Vec::new();
        for table in self.tables() {
            let mut table = table.lock().await;
            let files = table.files().await?;
            for file in &files {
                let size = table.stored_file_size(file).await?;
                if size != file.bytes {
                    let (name, path, expected) = (table.name(), &file.path, file.bytes);
                    return Err(Error::Damaged(format!("{name}: {path} has {size} bytes, expected {expected}")));
                }
            }
            let rows = files.iter().map(|file| file.rows).sum();
            found.push(TableSnapshot { table: table.name(), version: table.version(), files: files.len(), rows });
        }
        Ok(found)
    }
}
