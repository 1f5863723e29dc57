//! Opens all tables together.

use std::path::Path;
use std::sync::Arc;

use deltalake_core::datafusion::catalog::TableProvider;
use futures_util::future::{try_join, try_join_all};
use tokio::sync::{Mutex, RwLock};

use crate::config::Config;
use crate::error::Error;
use crate::format::parquet_source::ParquetSource;
use crate::format::row_buffer::BUS_TOPIC;
#[cfg(test)]
use crate::format::sample_file::{SampleRow, read_sample_file};
use crate::format::schema::TableSchema;
use crate::format::table_schemas::{EVENT_TABLES, FORMER_TABLES, GOLD_TABLES, HISTOGRAMS, SAMPLES, SERIES};
use crate::maintain::retention::Retention;
use crate::table::delta_table::Table;
use crate::table::lake_location::LakeLocation;
use crate::table::live_file::LiveFile;
use crate::table::local_disk::LocalDisk;
use crate::table::remote_store::probe_conditional_writes;
use crate::write::pending_rows::PendingRows;

/// The open tables.
#[derive(Debug)]
pub struct Lake {
    pub(crate) samples: Mutex<Table>,
    pub(crate) series: Mutex<Table>,
    /// The tables of [`EVENT_TABLES`], in that order. An older lake that is opened read-only may lack some.
    pub(crate) events: Vec<(&'static str, Mutex<Table>)>,
    /// The tables of [`GOLD_TABLES`], in that order. An older lake that is opened read-only may lack some.
    gold: Vec<(&'static str, Mutex<Table>)>,
    /// Those of [`FORMER_TABLES`] that exist.
    pub(crate) former: Vec<(&'static str, Mutex<Table>)>,
    /// Delta application id under which batches of the bus are committed.
    pub(crate) app_id: String,
    /// Event rows that are not committed yet. Locked while they move into a table, so that a query finds each row once.
    pub(crate) pending: RwLock<PendingRows>,
    pub(crate) retention: Vec<Retention>,
    /// Where the tables are.
    pub(crate) location: LakeLocation,
}

/// All tables except samples and series.
const OTHER_TABLES: [&[&TableSchema]; 3] = [&EVENT_TABLES, &GOLD_TABLES, &FORMER_TABLES];

impl Lake {
    /// Opens the tables for writing and creates missing ones. `data` is the data folder.
    ///
    /// # Errors
    /// Returns an error if a table cannot be opened or the configuration is invalid.
    pub async fn open(config: &Config, data: &Path) -> Result<Self, Error> {
        let root = config.root(data)?;
        let disk = match root.to_file_path() {
            Ok(folder) => Some(Arc::new(LocalDisk::open(&folder)?)),
            Err(()) => None,
        };
        let location = LakeLocation::open(root, &config.options, disk)?;
        probe_conditional_writes(&location.root, &location.options).await?;
        let open = async |schema: &'static TableSchema| {
            let is_former = FORMER_TABLES.iter().any(|former| former.name == schema.name);
            if is_former && !Table::exists(&location, schema).await? {
                return Ok(None);
            }
            Table::open(&location, schema).await.map(Some)
        };
        let missing = || Error::Unavailable("a table is missing".into());
        let lake = Self::open_tables(config, &location, &OTHER_TABLES, open).await?.ok_or_else(missing)?;
        for table in lake.tables() {
            let mut table = table.lock().await;
            // Commits of the previous process may not have been synced.
            table.sync()?;
            table.reload_position(&lake.app_id).await?;
        }
        Ok(lake)
    }

    /// Opens existing tables read-only, beside a running server or in a copy. Returns `None` if there are none.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read or the configuration is invalid.
    pub async fn open_read_only(config: &Config, data: &Path) -> Result<Option<Self>, Error> {
        Self::open_existing(config, data, None, &OTHER_TABLES).await
    }

    /// Opens the tables of samples, series and histograms read-only. A query for series does not wait for other tables.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read or the configuration is invalid.
    pub async fn open_series_read_only(config: &Config, data: &Path) -> Result<Option<Self>, Error> {
        Self::open_existing(config, data, None, &[&[&HISTOGRAMS]]).await
    }

    /// Opens existing tables for maintenance, with or without a running server. Returns `None` if there are none.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read or the configuration is invalid.
    pub async fn open_for_maintenance(config: &Config, data: &Path) -> Result<Option<Self>, Error> {
        let disk = config.folder(data)?.filter(|folder| folder.is_dir());
        let disk = disk.map(|folder| LocalDisk::open(&folder)).transpose()?;
        Self::open_existing(config, data, disk.map(Arc::new), &OTHER_TABLES).await
    }

    async fn open_existing(
        config: &Config,
        data: &Path,
        disk: Option<Arc<LocalDisk>>,
        others: &[&[&'static TableSchema]],
    ) -> Result<Option<Self>, Error> {
        let location = LakeLocation::open(config.root(data)?, &config.options, disk)?;
        let open = async |schema| Table::open_existing(&location, schema).await;
        Self::open_tables(config, &location, others, open).await
    }

    /// Opens samples, series and `others`. Returns `None` if samples or series do not exist.
    async fn open_tables(
        config: &Config,
        location: &LakeLocation,
        others: &[&[&'static TableSchema]],
        open: impl AsyncFn(&'static TableSchema) -> Result<Option<Table>, Error>,
    ) -> Result<Option<Self>, Error> {
        // Concurrently: each open waits for a cold disk or an object store.
        let first = try_join(open(&SAMPLES), open(&SERIES));
        let rest = try_join_all(others.iter().map(|group| try_join_all(group.iter().map(|schema| open(schema)))));
        let ((samples, series), rest) = try_join(first, rest).await?;
        let (Some(samples), Some(series)) = (samples, series) else { return Ok(None) };
        let mut groups = rest.into_iter().zip(others).map(|(tables, group)| {
            let named_tables =
                tables.into_iter().zip(*group).filter_map(|(table, schema)| Some((schema.name, table?.into())));
            named_tables.collect::<Vec<_>>()
        });
        let mut next = || groups.next().unwrap_or_default();
        let (events, gold, former) = (next(), next(), next());
        Ok(Some(Self {
            samples: samples.into(),
            series: series.into(),
            events,
            gold,
            former,
            app_id: format!("{BUS_TOPIC}-0"),
            pending: RwLock::default(),
            retention: config.retention.clone(),
            location: location.clone(),
        }))
    }

    /// Returns the names of the event tables, also of former ones, that do not exist. Those of gold are derived.
    pub fn missing_tables(&self) -> impl Iterator<Item = &'static str> {
        let names = EVENT_TABLES.iter().chain(&FORMER_TABLES).map(|schema| schema.name);
        names.filter(|name| self.table(name).is_none())
    }

    /// Returns a table by its name.
    pub(crate) fn table(&self, name: &str) -> Option<&Mutex<Table>> {
        let others = self.events.iter().chain(&self.gold).chain(&self.former).map(|(name, table)| (*name, table));
        let all = [(SAMPLES.name, &self.samples), (SERIES.name, &self.series)].into_iter().chain(others);
        all.into_iter().find(|(known, _)| *known == name).map(|(_, table)| table)
    }

    /// Returns all open tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Mutex<Table>> {
        let others = self.events.iter().chain(&self.gold).chain(&self.former).map(|(_, table)| table);
        [&self.samples, &self.series].into_iter().chain(others)
    }

    /// Returns the newest version of every table, by name, and the pending rows, for queries.
    pub(crate) async fn providers(&self) -> Result<(Vec<(&'static str, Arc<dyn TableProvider>)>, PendingRows), Error> {
        let pending = self.pending.read().await;
        let mut providers = Vec::new();
        for table in self.tables() {
            let mut table = table.lock().await;
            providers.push((table.name(), table.provider().await?));
        }
        Ok((providers, pending.clone()))
    }

    /// Returns the files of `silver.samples`.
    pub(crate) async fn sample_files(&self) -> Result<Vec<LiveFile>, Error> {
        self.samples.lock().await.files().await
    }

    /// Opens a file of `silver.samples`.
    pub(crate) async fn open_sample_file(&self, file: &LiveFile) -> Result<ParquetSource, Error> {
        self.samples.lock().await.open_file(file).await
    }

    /// Returns all rows of a file of `silver.samples`.
    #[cfg(test)]
    pub(crate) async fn sample_rows(&self, file: &LiveFile) -> Result<Vec<SampleRow>, Error> {
        read_sample_file(self.samples.lock().await.read_file(file).await?)
    }
}

#[cfg(test)]
mod tests;
