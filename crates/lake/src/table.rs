//! One Delta table: created, read afresh, and written exactly once.
//!
//! Problem: delta-rs records application transactions and does not enforce them, and writes local files without a
//! sync. Model: every commit carries `txn(appId = topic-partition, version = bus offset)`; before each, the version on record
//! is read from a fresh snapshot, and what is there already is skipped. Guarantee: however often a batch is tried,
//! it lands once, and the recorded version never goes back. A writer that a takeover has left behind loses: two commits with
//! one appId at the same time are a conflict, and whoever lost asks again. Batches of two writers need not end at the same offsets,
//! so a writer also goes on only where he left off: one who finds the table further on is told ([`Error::Overtaken`]) and
//! has to learn where it ends first.
//!

mod evolve;
mod removal;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::datafusion::catalog::TableProvider;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, LogicalFileView, Transaction};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError, ObjectStore, Path};
use object_store::ObjectStoreExt as _;
use url::Url;
use wardroom_domain::{TenantId, Timestamp, mutant};
use xxhash_rust::xxh3::xxh3_128;

use crate::Error;
use crate::copy::Piece;
use crate::disk::Disk;
use crate::samples::{DAY_MS, DataFile, day_of};
use crate::source::Source;
use crate::spec::Spec;

/// Columns that every table is partitioned by.
const PARTITIONS: [&str; 2] = ["tenant", "day"];
/// Commits that somebody else may win against us before we say so.
const RACES: usize = 15;

/// Whether a commit was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// By this call.
    Now,
    /// By an earlier one: nothing was written.
    Before,
}

/// A data file of a table's newest version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LiveFile {
    /// Below the table's root.
    pub(crate) path: String,
    /// Whose rows.
    pub(crate) tenant: TenantId,
    /// Days since the epoch.
    pub(crate) day: i64,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Its rows.
    pub(crate) rows: u64,
    /// Lowest and highest series, where the table has any.
    pub(crate) series: (i64, i64),
    /// First and last moment, in ms.
    pub(crate) span_ms: (i64, i64),
    /// When it was written, by the store's clock.
    pub(crate) written_ms: i64,
    /// End of the batch that brought it, on the bus; the last of them if it was merged.
    pub(crate) offset: u64,
}

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {
    spec: &'static Spec,
    table: DeltaTable,
    disk: Option<Arc<Disk>>,
    /// Where this writer left off, by the name under which he writes.
    left: BTreeMap<String, u64>,
}

impl Table {
    /// Opens the table below the root, creates it if there is none, and gives it the columns that are new.
    pub(crate) async fn open(
        root: &Url,
        spec: &'static Spec,
        options: &HashMap<String, String>,
        disk: Option<Arc<Disk>>,
    ) -> Result<Self, Error> {
        let url = place(root, spec)?;
        if let Some(disk) = &disk {
            disk.prepare(&url)?;
        }
        let mut table = DeltaTableBuilder::from_url(url)?.with_storage_options(options.clone()).build()?;
        if !table.verify_deltatable_existence().await? {
            // Another writer may have been first, at any moment of it.
            if let Err(error) = create(&table, spec).await
                && !table.verify_deltatable_existence().await?
            {
                return Err(error.into());
            }
        }
        table.load().await?;
        let table = evolve::evolve(table, spec).await?;
        Ok(Self { spec, table, disk, left: BTreeMap::new() })
    }

    /// Opens the table below the root as it is, if there is one: nothing is created or made good.
    pub(crate) async fn existing(
        root: &Url,
        spec: &'static Spec,
        options: &HashMap<String, String>,
        disk: Option<Arc<Disk>>,
    ) -> Result<Option<Self>, Error> {
        let url = place(root, spec)?;
        if url.to_file_path().is_ok_and(|folder| !folder.join("_delta_log").is_dir()) {
            return Ok(None);
        }
        let mut table = DeltaTableBuilder::from_url(url)?.with_storage_options(options.clone()).build()?;
        if !table.verify_deltatable_existence().await? {
            return Ok(None);
        }
        table.load().await?;
        Ok(Some(Self { spec, table, disk, left: BTreeMap::new() }))
    }

    /// What it is called.
    pub(crate) const fn name(&self) -> &'static str {
        self.spec.name
    }

    /// What it holds.
    pub(crate) const fn spec(&self) -> &'static Spec {
        self.spec
    }

    /// The bus offset up to which the table is written, asked afresh: the writer goes on there.
    pub(crate) async fn reached(&mut self, app: &str) -> Result<Option<u64>, Error> {
        let recorded = self.recorded(app).await?;
        match recorded {
            Some(offset) => drop(self.left.insert(app.to_owned(), offset)),
            None => drop(self.left.remove(app)),
        }
        Ok(recorded)
    }

    async fn recorded(&mut self, app: &str) -> Result<Option<u64>, Error> {
        self.table.update_state().await?;
        if mutant::on("skip-txn-check") {
            return Ok(None);
        }
        let version = self.table.snapshot()?.transaction_version(self.table.log_store().as_ref(), app).await?;
        Ok(version.and_then(|version| u64::try_from(version).ok()))
    }

    /// Adds files as the batch that ends before this bus offset. It is on the disk when this returns.
    pub(crate) async fn append(&mut self, app: &str, offset: u64, files: Vec<DataFile>) -> Result<Landed, Error> {
        let mut written: Option<Vec<Add>> = None;
        loop {
            let recorded = self.recorded(app).await?;
            if recorded.is_some_and(|recorded| recorded >= offset) {
                self.discard(written.unwrap_or_default()).await?;
                // It may have been committed and not been synced.
                self.sync()?;
                if recorded == Some(offset) {
                    self.left.insert(app.to_owned(), offset);
                }
                return Ok(Landed::Before);
            }
            let left = self.left.get(app).copied();
            if recorded != left && !mutant::on("skip-txn-check") {
                self.discard(written.unwrap_or_default()).await?;
                return Err(Error::Overtaken { table: self.spec.name, left, reached: recorded });
            }
            let adds = match &written {
                Some(adds) => adds.clone(),
                None => {
                    let mut adds = Vec::new();
                    for file in &files {
                        adds.push(self.put(file, offset).await?);
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
            let transaction = Transaction::new(app, version);
            let properties = CommitProperties::default().with_application_transaction(transaction);
            match self.commit(properties, adds.into_iter().map(Action::Add).collect(), operation).await {
                Err(DeltaTableError::Transaction { source: TransactionError::CommitConflict(conflict) }) => {
                    tracing::info!(table = self.spec.name, %conflict, "another writer was first; asking again");
                }
                other => {
                    other?;
                    self.sync()?;
                    // Not before: after a failed sync only the same batch may be tried again.
                    self.left.insert(app.to_owned(), offset);
                    return Ok(Landed::Now);
                }
            }
        }
    }

    /// The newest version, for queries.
    pub(crate) async fn provider(&mut self) -> Result<Arc<dyn TableProvider>, Error> {
        self.table.update_state().await?;
        self.table.table_provider().await.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// The files of the newest version.
    pub(crate) async fn files(&mut self) -> Result<Vec<LiveFile>, Error> {
        self.table.update_state().await?;
        self.table.snapshot()?.log_data().iter().map(|view| live(self.spec, &view)).collect()
    }

    /// Its columns.
    #[cfg(test)]
    pub(crate) fn schema(&self) -> deltalake_core::kernel::SchemaRef {
        self.table.snapshot().map(deltalake_core::table::state::DeltaTableState::schema).unwrap()
    }

    /// The newest version that was read.
    pub(crate) fn version(&self) -> u64 {
        self.table.version().unwrap_or_default()
    }

    /// The size of a file as the store says, in bytes.
    pub(crate) async fn size(&self, file: &LiveFile) -> Result<u64, Error> {
        let path = Path::from_url_path(&file.path).map_err(|error| Error::Damaged(error.to_string()))?;
        Ok(self.store().head(&path).await?.size)
    }

    /// The files of the newest version with those of its log; see [`Piece`].
    pub(crate) async fn pieces(&mut self) -> Result<Vec<Piece>, Error> {
        let files = self.files().await?;
        let place = self.spec.name.replace('.', "/");
        let Ok(folder) = self.table.table_url().to_file_path() else {
            return Err(Error::Unavailable(format!("{place} lies on an object store")));
        };
        let mut below: Vec<_> = files.into_iter().map(|file| file.path).collect();
        for entry in std::fs::read_dir(folder.join("_delta_log"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
            let whole = name.ends_with(".json") || name.ends_with(".parquet");
            if whole && version.is_some_and(|version| version <= self.version()) {
                below.push(format!("_delta_log/{name}"));
            }
        }
        let piece = |below: String| Piece { path: folder.join(&below), name: format!("{place}/{below}") };
        Ok(below.into_iter().map(piece).collect())
    }

    /// A file to read from, piece by piece where it is on a local disk.
    pub(crate) async fn open_file(&self, file: &LiveFile) -> Result<Source, Error> {
        match self.table.table_url().to_file_path() {
            Ok(folder) => Ok(Source::File(std::fs::File::open(folder.join(&file.path))?)),
            Err(()) => Ok(Source::Bytes(self.read(file).await?)),
        }
    }

    /// The bytes of a file.
    pub(crate) async fn read(&self, file: &LiveFile) -> Result<Bytes, Error> {
        let path = Path::from_url_path(&file.path).map_err(|error| Error::Damaged(error.to_string()))?;
        Ok(self.store().get(&path).await?.bytes().await?)
    }

    async fn commit(
        &mut self,
        properties: CommitProperties,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<(), DeltaTableError> {
        let store = self.table.log_store();
        let builder = CommitBuilder::from(properties.with_max_retries(RACES)).with_actions(actions);
        let state = self.table.snapshot()?;
        let done = builder.build(Some(state), store, operation).await?;
        self.table.state = Some(done.snapshot());
        Ok(())
    }

    /// The bus may only forget what outlives a power cut.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let version = self.table.version();
        match (&self.disk, version) {
            (Some(disk), Some(version)) => disk.sync(self.table.table_url(), version),
            _ => Ok(()),
        }
    }

    /// Writes a file that nobody knows yet.
    pub(crate) async fn put(&self, file: &DataFile, offset: u64) -> Result<Add, Error> {
        let day = date(file.day);
        let path = Path::from_iter([format!("tenant={}", file.tenant), format!("day={day}"), file_name(file, offset)]);
        self.store().put(&path, file.bytes.clone().into()).await?;
        Ok(Add {
            path: path.to_string(),
            partition_values: HashMap::from([
                ("tenant".to_owned(), Some(file.tenant.to_string())),
                ("day".to_owned(), Some(day)),
            ]),
            size: i64::try_from(file.bytes.len()).unwrap_or(i64::MAX),
            modification_time: self.written_ms(&path).await?,
            data_change: true,
            stats: Some(file.stats.to_string()),
            ..Add::default()
        })
    }

    /// The store's own clock says when a file was written.
    async fn written_ms(&self, path: &Path) -> Result<i64, Error> {
        Ok(self.store().head(path).await?.last_modified.timestamp_millis())
    }

    /// Deletes files that no commit names. A commit that seemed to lose may be the very one that won (a store may answer a
    /// repeated request for itself), so the newest version is asked.
    async fn discard(&self, adds: Vec<Add>) -> Result<(), Error> {
        let named: BTreeSet<String> = self.table.snapshot()?.log_data().iter().map(|file| file.path().into()).collect();
        for add in adds.into_iter().filter(|add| !named.contains(&add.path)) {
            if let Err(error) = self.store().delete(&Path::from(add.path)).await {
                tracing::warn!(table = self.spec.name, %error, "a file that is not needed stays");
            }
        }
        Ok(())
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        let store: LogStoreRef = self.table.log_store();
        store.object_store(None)
    }
}

/// By its content: a try that failed leaves the file that the next one writes, not one more.
fn file_name(file: &DataFile, offset: u64) -> String {
    format!("part-{offset:020}-{:032x}.parquet", xxh3_128(&file.bytes))
}

/// Where a table lies.
fn place(root: &Url, spec: &Spec) -> Result<Url, Error> {
    let below = spec.name.replace('.', "/") + "/";
    root.join(&below).map_err(|error| Error::Unavailable(error.to_string()))
}

async fn create(table: &DeltaTable, spec: &Spec) -> Result<DeltaTable, DeltaTableError> {
    CreateBuilder::new()
        .with_log_store(table.log_store())
        .with_save_mode(SaveMode::ErrorIfExists)
        .with_table_name(spec.name)
        .with_comment(spec.about)
        .with_columns(spec.delta())
        .with_partition_columns(PARTITIONS)
        .await
}

fn live(spec: &Spec, file: &LogicalFileView) -> Result<LiveFile, Error> {
    let path = file.path().into_owned();
    let odd = |what: &str| Error::Damaged(format!("{}: {what} of {path} cannot be read", spec.name));
    let partitions = file.partition_values_map();
    let value = |name: &str| partitions.get(name).cloned().flatten().ok_or_else(|| odd(name));
    let stats: serde_json::Value =
        serde_json::from_str(file.stats().as_deref().unwrap_or("{}")).map_err(|_| odd("stats"))?;
    let number = |bound: &str| stats[bound]["series_id"].as_i64().unwrap_or_default();
    let moment = |bound: &str| {
        let text = stats[bound]["ts"].as_str().and_then(|text| Timestamp::parse(text).ok());
        text.map_or(0, Timestamp::millis)
    };
    let day = Timestamp::parse(&format!("{}T00:00:00Z", value("day")?)).map_err(|_| odd("day"))?;
    let name = path.rsplit('/').next().and_then(|name| name.strip_prefix("part-"));
    let offset = name.and_then(|name| name.split('-').next()).and_then(|digits| digits.parse().ok());
    Ok(LiveFile {
        tenant: TenantId::new(value("tenant")?).map_err(|_| odd("tenant"))?,
        day: day_of(day.millis()),
        bytes: u64::try_from(file.size()).map_err(|_| odd("size"))?,
        rows: stats["numRecords"].as_u64().ok_or_else(|| odd("numRecords"))?,
        series: (number("minValues"), number("maxValues")),
        span_ms: (moment("minValues"), moment("maxValues")),
        written_ms: file.modification_time(),
        offset: offset.ok_or_else(|| odd("name"))?,
        path,
    })
}

/// A day as Delta's partitions name it.
pub(crate) fn date(day: i64) -> String {
    let start = Timestamp::from_millis(day.saturating_mul(DAY_MS)).to_string();
    start.split('T').next().unwrap_or_default().to_owned()
}
