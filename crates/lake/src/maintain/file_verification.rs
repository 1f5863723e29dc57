//! Reads all files of all tables and compares them with their checksums and with the tables' logs.
//!
//! Works beside a running server: files never change, and a file that is gone is looked up in the newest version of its
//! table before it counts as missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::parquet::file::metadata::ParquetMetaData;
use deltalake_core::parquet::file::statistics::Statistics;
use deltalake_core::{ObjectStore, ObjectStoreError, Path};
use futures_util::StreamExt;
use object_store::ObjectStoreExt as _;
use tokio::sync::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::damaged_files::{DamagedFile, MISSING};
use crate::error::Error;
use crate::format::checksums::parse_metadata;
use crate::format::file_name::{NameHash, name_hash};
use crate::lake::Lake;
use crate::table::delta_table::Table;
use crate::table::live_file::{LiveFile, format_day};
use crate::table::log_checksums::LogChecksums;
use crate::table::power_loss_repair::synced_version;

/// Files read at the same time.
const PARALLEL_FILES: usize = 4;
/// Bytes read at a time from a file.
const READ_BYTES: u64 = 4 << 20;
/// Bytes at the end of a file that hold its footer, in most files; read again from its start if it is longer.
const FOOTER_READ_BYTES: u64 = 64 << 10;
/// First and last bytes of a Parquet file.
const MAGIC: &[u8] = b"PAR1";

/// What the verification of a table found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableVerification {
    /// Table name.
    pub table: &'static str,
    /// Version of the Delta table.
    pub version: u64,
    /// Number of files.
    pub files: usize,
    /// Number of rows.
    pub rows: u64,
    /// Size of all files, in bytes.
    pub bytes: u64,
    /// Files of other programs, which have no checksum: only their footers were checked.
    pub unchecked: usize,
    /// Damaged and missing files.
    pub damaged: Vec<DamagedFile>,
}

/// Progress of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationProgress {
    /// This many bytes of files are to be read in a table.
    Table {
        /// Table name.
        table: &'static str,
        /// Bytes of its files.
        bytes: u64,
    },
    /// This many bytes were read.
    Bytes(u64),
}

impl Lake {
    /// Reads all files of all tables, and compares their sizes, checksums and rows with what was written.
    ///
    /// # Errors
    /// Returns an error if a table's log or the store cannot be read. Damaged files are part of the result.
    pub async fn verify(
        &self,
        on_progress: impl Fn(VerificationProgress) + Sync,
    ) -> Result<Vec<TableVerification>, Error> {
        let mut found = Vec::new();
        for table in self.tables() {
            found.push(self.verify_table(table, &on_progress).await?);
        }
        Ok(found)
    }

    async fn verify_table(
        &self,
        table: &Mutex<Table>,
        on_progress: &(impl Fn(VerificationProgress) + Sync),
    ) -> Result<TableVerification, Error> {
        let (name, version, files, store, is_local) = {
            let mut table = table.lock().await;
            let files = table.files().await?;
            (table.name(), table.version(), files, table.store(), table.local_folder().is_some())
        };
        let bytes = files.iter().map(|file| file.bytes).sum();
        on_progress(VerificationProgress::Table { table: name, bytes });
        let on_bytes = &|bytes| on_progress(VerificationProgress::Bytes(bytes));
        let check = |file: &LiveFile| {
            let (store, file) = (Arc::clone(&store), file.clone());
            async move {
                let checked = check_file(&*store, &file, on_bytes).await;
                (file, checked)
            }
        };
        let checks: Vec<_> = files.iter().map(check).collect();
        let mut checks = futures_util::stream::iter(checks).buffer_unordered(PARALLEL_FILES);
        let (mut unchecked, mut failed) = (0, Vec::new());
        while let Some((file, checked)) = checks.next().await {
            match checked {
                Ok(has_checksum) => unchecked += usize::from(!has_checksum),
                Err(FileError::Damaged(detail)) => failed.push((file, detail)),
                // A disk reports a bad sector as an error of this file only.
                Err(FileError::Store(error)) if is_local => failed.push((file, format!("it cannot be read: {error}"))),
                Err(FileError::Store(error)) => return Err(error),
            }
        }
        let mut damaged = damaged_log_files(&*table.lock().await)?;
        damaged.iter().for_each(|file| tracing::error!(error = %file, "the log of a table is damaged"));
        if !failed.is_empty() {
            // A merge may have replaced a file meanwhile, and its bytes may be deleted.
            let mut table = table.lock().await;
            let live: BTreeSet<String> = table.files().await?.into_iter().map(|file| file.path).collect();
            failed.retain(|(file, _)| live.contains(&file.path));
            for (file, detail) in failed {
                let file = DamagedFile { path: table.path_in_lake(&file), detail };
                self.location.damaged_files.record(&file);
                damaged.push(file);
            }
        }
        damaged.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let rows = files.iter().map(|file| file.rows).sum();
        Ok(TableVerification { table: name, version, files: files.len(), rows, bytes, unchecked, damaged })
    }

    /// Returns the damaged files that reads have found since this lake was opened, without those that are intact again
    /// or no longer part of a table (see [`Lake::recheck_damaged_files`]).
    pub fn damaged_files(&self) -> Vec<DamagedFile> {
        self.location.damaged_files.list()
    }

    /// Remembers a damaged file that another process found.
    pub fn add_damaged_file(&self, file: &DamagedFile) {
        self.location.damaged_files.record(file);
    }

    /// Reads the damaged files again, and forgets those that are intact or no longer part of a table.
    ///
    /// # Errors
    /// Returns an error if a table's log cannot be read.
    pub async fn recheck_damaged_files(&self) -> Result<(), Error> {
        let mut damaged: BTreeSet<String> = self.damaged_files().into_iter().map(|file| file.path).collect();
        if damaged.is_empty() {
            return Ok(());
        }
        for table in self.tables() {
            let (files, store) = {
                let mut table = table.lock().await;
                let files = table.files().await?.into_iter().map(|file| (table.path_in_lake(&file), file));
                (files.collect::<Vec<_>>(), table.store())
            };
            for (path, file) in files {
                if !damaged.contains(&path) {
                    continue;
                }
                if check_file(&*store, &file, &|_| {}).await.is_err() {
                    damaged.remove(&path);
                } else {
                    tracing::info!(path, "a damaged file of the lake is intact again");
                }
            }
        }
        damaged.iter().for_each(|path| self.location.damaged_files.remove(path));
        Ok(())
    }
}

/// Returns the commits and checkpoints of a local table that do not match their checksums.
fn damaged_log_files(table: &Table) -> Result<Vec<DamagedFile>, Error> {
    let Some(folder) = table.local_folder() else { return Ok(Vec::new()) };
    let damaged = LogChecksums::read(&folder, synced_version(&folder))?.damaged_files(&folder);
    let below = table.name().replace('.', "/");
    let file = |name: String| DamagedFile {
        path: format!("{below}/_delta_log/{name}"),
        detail: "it does not match its checksum, or cannot be read".to_owned(),
    };
    Ok(damaged.into_iter().map(file).collect())
}

/// Why a file was not verified.
enum FileError {
    /// The file is damaged or missing: what is wrong.
    Damaged(String),
    /// The store cannot be read.
    Store(Error),
}

impl From<ObjectStoreError> for FileError {
    fn from(error: ObjectStoreError) -> Self {
        if let Some(file) = DamagedFile::cause_of(&error) {
            return Self::Damaged(file.detail.clone());
        }
        match error {
            ObjectStoreError::NotFound { .. } => Self::Damaged(MISSING.to_owned()),
            error => Self::Store(error.into()),
        }
    }
}

/// Reads a file as a whole through a store that compares it with its checksums. Returns whether the file has one.
async fn check_file(
    store: &dyn ObjectStore,
    file: &LiveFile,
    on_bytes: &(impl Fn(u64) + Sync),
) -> Result<bool, FileError> {
    let damaged = |detail: String| Err(FileError::Damaged(detail));
    let path = Path::from_url_path(&file.path).map_err(|error| FileError::Damaged(error.to_string()))?;
    let length = store.head(&path).await?.size;
    if length != file.bytes {
        return damaged(format!("it has {length} bytes, and the table's log says {}", file.bytes));
    }
    let (mut hash, mut position) = (Xxh3::new(), 0);
    let expected = name_hash(&file.path);
    while position < length {
        let end = length.min(position + READ_BYTES);
        let bytes = store.get_range(&path, position..end).await?;
        if position == 0 && !bytes.starts_with(MAGIC) {
            return damaged("its first bytes are not those of a Parquet file".to_owned());
        }
        if matches!(expected, Some(NameHash::Whole(_))) {
            hash.update(&bytes);
        }
        on_bytes(end - position);
        position = end;
    }
    if let Some(NameHash::Whole(expected)) = expected
        && hash.digest128() != expected
    {
        return damaged("its content does not match the hash in its name".to_owned());
    }
    let metadata = read_metadata(store, &path, length).await?;
    if let Some(detail) = log_mismatch(file, &metadata) {
        return damaged(detail);
    }
    Ok(expected.is_some())
}

/// Reads a file's footer.
async fn read_metadata(store: &dyn ObjectStore, path: &Path, length: u64) -> Result<ParquetMetaData, FileError> {
    let mut start = length.saturating_sub(FOOTER_READ_BYTES);
    loop {
        let tail: Bytes = store.get_range(path, start..length).await?;
        match parse_metadata(&tail) {
            Ok(metadata) => return Ok(metadata),
            Err(error) if start == 0 => {
                return Err(FileError::Damaged(format!("the footer cannot be read: {error}")));
            }
            Err(_) => start = 0,
        }
    }
}

/// Returns how a file differs from its entry in the table's log: a log whose values are wrong hides rows from queries.
fn log_mismatch(file: &LiveFile, metadata: &ParquetMetaData) -> Option<String> {
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or_default();
    if rows != file.rows {
        return Some(format!("it has {rows} rows, and the table's log says {}", file.rows));
    }
    let partition = format!("tenant={}/day={}/", file.tenant, format_day(file.day));
    if name_hash(&file.path).is_some() && !file.path.starts_with(&partition) {
        return Some(format!("the table's log has it under {partition}, another partition than its folder"));
    }
    if file.series != (0, 0)
        && let Some((low, high)) = column_range(metadata, "series_id")
        && (low < file.series.0 || high > file.series.1)
    {
        let (first, last) = file.series;
        return Some(format!("it has the series {low} to {high}, and the table's log says {first} to {last}"));
    }
    let (first, last) = file.span_ms;
    if file.span_ms != (0, 0)
        && let Some((low, high)) = column_range(metadata, "ts")
        && (low.div_euclid(1000) < first || high.div_euclid(1000) > last)
    {
        return Some(format!("it has rows from {low} to {high} µs, and the table's log says {first} to {last} ms"));
    }
    None
}

/// Returns the lowest and the highest value of an integer column, if all row groups have them.
fn column_range(metadata: &ParquetMetaData, name: &str) -> Option<(i64, i64)> {
    let mut range: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
        let Some(Statistics::Int64(values)) = column.statistics() else { return None };
        let (low, high) = (*values.min_opt()?, *values.max_opt()?);
        range = Some(range.map_or((low, high), |(first, last)| (first.min(low), last.max(high))));
    }
    range
}

#[cfg(test)]
mod tests;
