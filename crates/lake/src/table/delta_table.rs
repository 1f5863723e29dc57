//! One Delta table: open, append exactly once, list files, sync.
//!
//! Problem: delta-rs records application transactions but does not enforce them, and it writes local files without a
//! sync. Model: every commit carries `txn(appId = topic-partition, version = bus offset)`. Before a commit the recorded
//! version is read from a fresh snapshot; a batch that is recorded already is skipped. Guarantee: a batch is committed
//! once, however often it is retried, and the recorded offset never decreases.
//!
//! Two commits with the same appId at the same time conflict, and the loser retries from a fresh snapshot. Batches of
//! two writers may end at different offsets, so a writer appends only where its own last batch ended: if the table has
//! moved on, the append fails with [`Error::OffsetConflict`] and the writer has to reload its position.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::datafusion::catalog::TableProvider;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError, ObjectStore, Path};
use object_store::ObjectStoreExt as _;
use wardroom_domain::mutant;

use crate::damaged_files::{DamagedFile, DamagedFiles, MISSING};
use crate::error::Error;
use crate::format::data_file::DataFile;
use crate::format::file_name::data_file_name;
use crate::format::parquet_source::{ParquetSource, SourceBytes};
use crate::format::schema::TableSchema;
use crate::table::column_addition::add_new_columns;
use crate::table::lake_location::{LakeLocation, table_folder};
use crate::table::live_file::{LiveFile, format_day, live_file};
use crate::table::local_disk::LocalDisk;

/// Partition columns of every table.
pub(super) const PARTITIONS: [&str; 2] = ["tenant", "day"];
/// Retries of a commit that other writers overtake.
const MAX_COMMIT_RETRIES: usize = 15;

/// Whether a call wrote its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The batch was written by this call.
    Committed,
    /// The batch was committed before; nothing was written.
    AlreadyCommitted,
}

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) schema: &'static TableSchema,
    pub(super) table: DeltaTable,
    disk: Option<Arc<LocalDisk>>,
    pub(super) damaged_files: DamagedFiles,
    /// Offset at which this writer's last batch ended, by application id.
    expected_offsets: BTreeMap<String, u64>,
    /// The version to read, instead of the newest: rows of later ones came from elsewhere.
    pub(crate) pinned_version: Option<u64>,
}

impl Table {
    /// Opens the table. Creates it if missing, and adds new columns.
    pub(crate) async fn open(location: &LakeLocation, schema: &'static TableSchema) -> Result<Self, Error> {
        if let Some(disk) = &location.disk {
            disk.prepare_table(&location.table_url(schema)?)?;
        }
        let mut table = location.table(schema)?;
        if !table.verify_deltatable_existence().await? {
            // Another writer may create the table at the same time.
            if let Err(error) = create(&table, schema).await
                && !table.verify_deltatable_existence().await?
            {
                return Err(error.into());
            }
        }
        table.load().await.map_err(|error| Error::Unavailable(format!("{}: {error}", schema.name)))?;
        let table = add_new_columns(table, schema).await?;
        Ok(Self::new(location, schema, table))
    }

    /// Returns whether the table exists, without reading it.
    pub(crate) async fn exists(location: &LakeLocation, schema: &'static TableSchema) -> Result<bool, Error> {
        let url = location.table_url(schema)?;
        if url.to_file_path().is_ok_and(|folder| !folder.join("_delta_log").is_dir()) {
            return Ok(false);
        }
        Ok(location.table(schema)?.verify_deltatable_existence().await?)
    }

    /// Opens the table without creating, repairing or changing it. Returns `None` if it does not exist.
    pub(crate) async fn open_existing(
        location: &LakeLocation,
        schema: &'static TableSchema,
    ) -> Result<Option<Self>, Error> {
        if !Self::exists(location, schema).await? {
            return Ok(None);
        }
        let mut table = location.table(schema)?;
        table.load().await.map_err(|error| Error::Unavailable(format!("{}: {error}", schema.name)))?;
        Ok(Some(Self::new(location, schema, table)))
    }

    fn new(location: &LakeLocation, schema: &'static TableSchema, table: DeltaTable) -> Self {
        let (disk, damaged_files) = (location.disk.clone(), location.damaged_files.clone());
        Self { schema, table, disk, damaged_files, expected_offsets: BTreeMap::new(), pinned_version: None }
    }

    /// Name with layer, such as `silver.samples`.
    pub(crate) const fn name(&self) -> &'static str {
        self.schema.name
    }

    /// The table's columns.
    pub(crate) const fn schema(&self) -> &'static TableSchema {
        self.schema
    }

    /// Reads the committed bus offset from a fresh snapshot. Later appends continue there.
    pub(crate) async fn reload_position(&mut self, app_id: &str) -> Result<Option<u64>, Error> {
        let committed = self.committed_offset(app_id).await?;
        match committed {
            Some(offset) => drop(self.expected_offsets.insert(app_id.to_owned(), offset)),
            None => drop(self.expected_offsets.remove(app_id)),
        }
        Ok(committed)
    }

    /// Reads the committed bus offset from a fresh snapshot.
    async fn committed_offset(&mut self, app_id: &str) -> Result<Option<u64>, Error> {
        self.table.update_state().await?;
        if mutant::is_enabled("skip-txn-check") {
            return Ok(None);
        }
        let version = self.table.snapshot()?.transaction_version(self.table.log_store().as_ref(), app_id).await?;
        Ok(version.and_then(|version| u64::try_from(version).ok()))
    }

    /// Appends files as the batch that ends before this bus offset. The commit is synced when this returns.
    pub(crate) async fn append(
        &mut self,
        app_id: &str,
        offset: u64,
        files: Vec<DataFile>,
    ) -> Result<CommitOutcome, Error> {
        let mut written: Option<Vec<Add>> = None;
        loop {
            let recorded = self.committed_offset(app_id).await?;
            if recorded.is_some_and(|recorded| recorded >= offset) {
                self.delete_uncommitted(written.unwrap_or_default()).await?;
                // An earlier attempt may have committed without syncing.
                self.sync()?;
                if recorded == Some(offset) {
                    self.expected_offsets.insert(app_id.to_owned(), offset);
                }
                return Ok(CommitOutcome::AlreadyCommitted);
            }
            let expected = self.expected_offsets.get(app_id).copied();
            if recorded != expected && !mutant::is_enabled("skip-txn-check") {
                self.delete_uncommitted(written.unwrap_or_default()).await?;
                return Err(Error::OffsetConflict { table: self.schema.name, expected, found: recorded });
            }
            let adds = match &written {
                Some(adds) => adds.clone(),
                None => {
                    let mut adds = Vec::new();
                    for file in &files {
                        adds.push(self.write_file(file, offset).await?);
                    }
                    written.insert(adds).clone()
                }
            };
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: Some(PARTITIONS.map(str::to_owned).to_vec()),
                predicate: None,
            };
            let version = i64::try_from(offset).unwrap_or(i64::MAX);
            let transaction = Transaction::new(app_id, version);
            let properties = CommitProperties::default().with_application_transaction(transaction);
            match self.commit(properties, adds.into_iter().map(Action::Add).collect(), operation).await {
                Err(DeltaTableError::Transaction { source: TransactionError::CommitConflict(conflict) }) => {
                    tracing::info!(table = self.schema.name, %conflict, "commit conflict; retrying");
                }
                other => {
                    other?;
                    self.sync()?;
                    // Only after the sync: after a failed sync the same batch has to be retried.
                    self.expected_offsets.insert(app_id.to_owned(), offset);
                    return Ok(CommitOutcome::Committed);
                }
            }
        }
    }

    /// Reads the log up to the newest version, or to the pinned one.
    async fn update(&mut self) -> Result<(), Error> {
        match self.pinned_version {
            Some(version) => Ok(self.table.load_version(version).await?),
            None => Ok(self.table.update_state().await?),
        }
    }

    /// Returns the newest version, or the pinned one, for queries.
    pub(crate) async fn provider(&mut self) -> Result<Arc<dyn TableProvider>, Error> {
        self.update().await?;
        self.table.table_provider().await.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Lists the files of the newest version, or of the pinned one.
    pub(crate) async fn files(&mut self) -> Result<Vec<LiveFile>, Error> {
        self.update().await?;
        self.table.snapshot()?.log_data().iter().map(|view| live_file(self.schema, &view)).collect()
    }

    /// Returns the table's schema as recorded in its log.
    #[cfg(test)]
    pub(crate) fn delta_schema(&self) -> deltalake_core::kernel::SchemaRef {
        self.table.snapshot().map(deltalake_core::table::state::DeltaTableState::schema).unwrap()
    }

    /// Returns the newest version that was read.
    pub(crate) fn version(&self) -> u64 {
        self.table.version().unwrap_or_default()
    }

    /// Opens a data file: local files are read in parts, objects as a whole. What is read is compared with the file's
    /// checksums.
    pub(crate) async fn open_file(&self, file: &LiveFile) -> Result<ParquetSource, Error> {
        let path = self.path_in_lake(file);
        let bytes = match self.local_folder().map(|folder| std::fs::File::open(folder.join(&file.path))) {
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => {
                let missing = DamagedFile { path, detail: MISSING.to_owned() };
                self.damaged_files.record(&missing);
                return Err(missing.into());
            }
            Some(opened) => SourceBytes::File(opened?),
            None => SourceBytes::Memory(self.read_file(file).await?),
        };
        ParquetSource::open(bytes, path, &self.damaged_files)
    }

    /// Reads a data file as a whole, and compares it with its checksums.
    pub(crate) async fn read_file(&self, file: &LiveFile) -> Result<Bytes, Error> {
        let path = Path::from_url_path(&file.path).map_err(|error| Error::Damaged(error.to_string()))?;
        Ok(self.store().get(&path).await?.bytes().await?)
    }

    /// Returns the table's folder, if it is on a local disk.
    pub(crate) fn local_folder(&self) -> Option<PathBuf> {
        self.table.table_url().to_file_path().ok()
    }

    /// Returns a file's path below the lake's root.
    pub(crate) fn path_in_lake(&self, file: &LiveFile) -> String {
        format!("{}/{}", table_folder(self.schema), file.path)
    }

    pub(super) async fn commit(
        &mut self,
        properties: CommitProperties,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<(), DeltaTableError> {
        let store = self.table.log_store();
        let builder = CommitBuilder::from(properties.with_max_retries(MAX_COMMIT_RETRIES)).with_actions(actions);
        let state = self.table.snapshot()?;
        let done = builder.build(Some(state), store, operation).await?;
        self.table.state = Some(done.snapshot());
        Ok(())
    }

    /// Syncs the newest version to the local disk. The bus may delete records only after this.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let version = self.table.version();
        match (&self.disk, version) {
            (Some(disk), Some(version)) => disk.sync(self.table.table_url(), version),
            _ => Ok(()),
        }
    }

    /// Writes a data file that no commit names yet.
    pub(crate) async fn write_file(&self, file: &DataFile, offset: u64) -> Result<Add, Error> {
        let day = format_day(file.day);
        let path =
            Path::from_iter([format!("tenant={}", file.tenant), format!("day={day}"), data_file_name(file, offset)]);
        self.store().put(&path, file.bytes.clone().into()).await?;
        Ok(Add {
            path: path.to_string(),
            partition_values: HashMap::from([
                ("tenant".to_owned(), Some(file.tenant.to_string())),
                ("day".to_owned(), Some(day)),
            ]),
            size: i64::try_from(file.bytes.len()).unwrap_or(i64::MAX),
            modification_time: self.modified_ms(&path).await?,
            data_change: true,
            stats: Some(file.stats.to_string()),
            ..Add::default()
        })
    }

    /// Returns the modification time by the store's clock, in ms.
    async fn modified_ms(&self, path: &Path) -> Result<i64, Error> {
        Ok(self.store().head(path).await?.last_modified.timestamp_millis())
    }

    /// Deletes files that no commit names. A commit that seemed to fail may have succeeded (a store may reject
    /// a retried request with a conflict), so the newest version is checked first.
    pub(super) async fn delete_uncommitted(&self, adds: Vec<Add>) -> Result<(), Error> {
        let committed_paths: BTreeSet<String> =
            self.table.snapshot()?.log_data().iter().map(|file| file.path().into()).collect();
        for add in adds.into_iter().filter(|add| !committed_paths.contains(&add.path)) {
            if let Err(error) = self.store().delete(&Path::from(add.path)).await {
                tracing::warn!(table = self.schema.name, %error, "deleting an uncommitted file failed");
            }
        }
        Ok(())
    }

    /// The store of the table's folder. Data files are compared with their checksums when they are read.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        let store: LogStoreRef = self.table.log_store();
        store.object_store(None)
    }
}

async fn create(table: &DeltaTable, schema: &TableSchema) -> Result<DeltaTable, DeltaTableError> {
    CreateBuilder::new()
        .with_log_store(table.log_store())
        .with_save_mode(SaveMode::ErrorIfExists)
        .with_table_name(schema.name)
        .with_comment(schema.comment)
        .with_columns(schema.delta_fields())
        .with_partition_columns(PARTITIONS)
        .await
}
