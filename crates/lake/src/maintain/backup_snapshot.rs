//! Lists the files of a backup and verifies a restored one.
//!
//! Files of a table never change: a commit, checkpoint or data file exists or does not. The newest version of a table
//! is therefore its log up to that version and the data files that this version names, whatever is written meanwhile.
//! `_last_checkpoint`, the only file that is overwritten, is a hint that readers can do without.

use crate::error::Error;
use crate::lake::Lake;
use crate::maintain::file_verification::TableVerification;
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

    /// Reads every data file, compares it with its checksums, and describes the tables.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if a table cannot be read.
    pub async fn verify_snapshot(&self) -> Result<Vec<TableSnapshot>, Error> {
        let mut found = Vec::new();
        for TableVerification { table, version, files, rows, damaged, .. } in self.verify(|_| {}).await? {
            if let Some(file) = damaged.into_iter().next() {
                return Err(file.into());
            }
            found.push(TableSnapshot { table, version, files, rows });
        }
        Ok(found)
    }
}
