//! All tables together, as the rest of the house sees them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use deltalake_core::datafusion::catalog::TableProvider;
use futures_util::future::{try_join, try_join_all};
use tokio::sync::{Mutex, RwLock};
use wardroom_domain::{Labels, Sample, TenantId, Timestamp};

use crate::disk::Disk;
use crate::events::{Pending, Reached, Written};
use crate::merge::LONG_MS;
use crate::rows::{self, Cell, Lineage, Request, Rows};
#[cfg(test)]
use crate::samples::{self, Row};
use crate::samples::{DataFile, FILE_ROWS, SampleFile, Use, day_of};
use crate::source::Source;
use crate::spec::{EVENTS, GOLD, HISTOGRAMS, LOGS, SAMPLES, SERIES, Spec};
use crate::table::{Landed, LiveFile, Table};
use crate::{Config, Error, Retention, TOPIC, remote};

/// The tables.
#[derive(Debug)]
pub struct Lake {
    pub(crate) samples: Mutex<Table>,
    series: Mutex<Table>,
    /// Those of [`EVENTS`], in their order; as of [`GOLD`], an older lake that is only read may lack some.
    events: Vec<(&'static str, Mutex<Table>)>,
    /// Those of [`GOLD`], in their order.
    gold: Vec<(&'static str, Mutex<Table>)>,
    app: String,
    /// What [`Events`](crate::Events) holds that is in no table yet. Locked while tables change hands with it, so that whoever
    /// asks finds each row once.
    pub(crate) pending: RwLock<Pending>,
    pub(crate) retention: Vec<Retention>,
}

/// Every table but those of samples and series: of events, and of gold.
const ALL: [&[&Spec]; 2] = [&EVENTS, &GOLD];

/// How much of a tenant's a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The table.
    pub table: &'static str,
    /// Its files.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Rows that the rules of retention let go at the next turn.
    pub outdated: u64,
}

/// A series that the lake has not seen yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSeries {
    /// Whose.
    pub tenant: TenantId,
    /// Its number.
    pub id: i64,
    /// Its labels.
    pub labels: Labels,
    /// Time of its first sample, in ms.
    pub first_ms: i64,
}

/// The samples that came up to an offset of the bus, on their way into files.
pub struct Flush {
    offset: u64,
    open: BTreeMap<(TenantId, i64), SampleFile>,
    full: Vec<DataFile>,
    run: Vec<(Sample, i64)>,
}

impl Flush {
    /// Nothing yet; the batch ends before this offset.
    pub const fn new(offset: u64) -> Self {
        Self { offset, open: BTreeMap::new(), full: Vec::new(), run: Vec::new() }
    }

    /// Samples of one series, ascending by time. The series of a tenant come in the order of their numbers.
    ///
    /// # Errors
    /// They cannot be written down.
    pub fn push(&mut self, tenant: &TenantId, series_id: i64, samples: &[Sample]) -> Result<(), Error> {
        let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        for day in samples.chunk_by(|a, b| day_of(a.ts_ms) == day_of(b.ts_ms)) {
            let (Some(first), Some(last)) = (day.first(), day.last()) else { continue };
            self.run.clear();
            self.run.extend(day.iter().map(|sample| (*sample, offset)));
            let key = (tenant.clone(), day_of(first.ts_ms));
            let file = match self.open.get_mut(&key) {
                Some(file) => file,
                None => {
                    // No merge touches it again.
                    let long = last.ts_ms - first.ts_ms >= LONG_MS;
                    let use_of = if long { Use::Stay } else { Use::Flush };
                    self.open.entry(key.clone()).or_insert(SampleFile::new(key.0.clone(), key.1, use_of)?)
                }
            };
            file.push(series_id, &self.run)?;
            if file.rows() >= FILE_ROWS
                && let Some(full) = self.open.remove(&key)
            {
                self.full.push(full.finish()?);
            }
        }
        Ok(())
    }

    /// Encodes what is open, so that nothing but the store can fail after it.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn close(&mut self) -> Result<(), Error> {
        for (_, file) in std::mem::take(&mut self.open) {
            self.full.push(file.finish()?);
        }
        Ok(())
    }
}

impl Lake {
    /// Opens the tables, or creates them. `data` is the data folder.
    ///
    /// # Errors
    /// They cannot be read, or the settings name no place.
    pub async fn open(config: &Config, data: &Path) -> Result<Self, Error> {
        let root = config.root(data)?;
        let options: HashMap<String, String> = config.options.clone().into_iter().collect();
        remote::register(&root, &options)?;
        let disk = match root.to_file_path() {
            Ok(folder) => Some(Arc::new(Disk::open(&folder)?)),
            Err(()) => None,
        };
        remote::probe(&root, &options).await?;
        let open = async |spec| Table::open(&root, spec, &options, disk.clone()).await.map(Some);
        let missing = || Error::Unavailable("a table is missing".into());
        let this = Self::of(config, &ALL, open).await?.ok_or_else(missing)?;
        for table in this.all() {
            let mut table = table.lock().await;
            // What the process before committed may not be on the disk.
            table.sync()?;
            table.reached(&this.app).await?;
        }
        Ok(this)
    }

    /// Opens tables that are there, to read from them only: beside a running server, or in a copy. Nothing if there are none.
    ///
    /// # Errors
    /// They cannot be read, or the settings name no place.
    pub async fn look(config: &Config, data: &Path) -> Result<Option<Self>, Error> {
        Self::existing(config, data, None, &ALL).await
    }

    /// Opens the tables of series and what they have only, to read from them: whoever waits for one series waits for no other
    /// table.
    ///
    /// # Errors
    /// They cannot be read, or the settings name no place.
    pub async fn look_at_series(config: &Config, data: &Path) -> Result<Option<Self>, Error> {
        Self::existing(config, data, None, &[&[&HISTOGRAMS]]).await
    }

    /// Opens tables that are there to look after them, beside a running server or without one. Nothing if there are none.
    ///
    /// # Errors
    /// They cannot be read, or the settings name no place.
    pub async fn tend(config: &Config, data: &Path) -> Result<Option<Self>, Error> {
        let disk = config.folder(data)?.filter(|folder| folder.is_dir());
        let disk = disk.map(|folder| Disk::open(&folder)).transpose()?;
        Self::existing(config, data, disk.map(Arc::new), &ALL).await
    }

    async fn existing(
        config: &Config,
        data: &Path,
        disk: Option<Arc<Disk>>,
        more: &[&[&'static Spec]],
    ) -> Result<Option<Self>, Error> {
        let root = config.root(data)?;
        let options: HashMap<String, String> = config.options.clone().into_iter().collect();
        remote::register(&root, &options)?;
        Self::of(config, more, async |spec| Table::existing(&root, spec, &options, disk.clone()).await).await
    }

    /// The tables of samples and series, and more of them.
    async fn of(
        config: &Config,
        more: &[&[&'static Spec]],
        open: impl AsyncFn(&'static Spec) -> Result<Option<Table>, Error>,
    ) -> Result<Option<Self>, Error> {
        // All at once: each is waited for, on a cold disk or an object store.
        let first = try_join(open(&SAMPLES), open(&SERIES));
        let rest = try_join_all(more.iter().map(|specs| try_join_all(specs.iter().map(|spec| open(spec)))));
        let ((samples, series), rest) = try_join(first, rest).await?;
        let (Some(samples), Some(series)) = (samples, series) else { return Ok(None) };
        let mut groups = rest.into_iter().zip(more).map(|(tables, specs)| {
            let named = tables.into_iter().zip(*specs).filter_map(|(table, spec)| Some((spec.name, table?.into())));
            named.collect::<Vec<_>>()
        });
        let (events, gold) = (groups.next().unwrap_or_default(), groups.next().unwrap_or_default());
        Ok(Some(Self {
            samples: samples.into(),
            series: series.into(),
            events,
            gold,
            app: format!("{TOPIC}-0"),
            pending: RwLock::default(),
            retention: config.retention.clone(),
        }))
    }

    /// A table by its name.
    pub(crate) fn table(&self, name: &str) -> Option<&Mutex<Table>> {
        let more = self.events.iter().chain(&self.gold).map(|(name, table)| (*name, table));
        let all = [(SAMPLES.name, &self.samples), (SERIES.name, &self.series)].into_iter().chain(more);
        all.into_iter().find(|(known, _)| *known == name).map(|(_, table)| table)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Mutex<Table>> {
        let more = self.events.iter().chain(&self.gold).map(|(_, table)| table);
        [&self.samples, &self.series].into_iter().chain(more)
    }

    /// Up to which offset of the bus each table of [`Events`](crate::Events) is written. A table may lag behind only
    /// because nothing came for it.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn events_reached(&self) -> Result<Reached, Error> {
        let mut reached = Reached::default();
        for (_, table) in &self.events {
            let mut table = table.lock().await;
            let offset = table.reached(&self.app).await?.unwrap_or(0);
            reached.0.insert(table.name(), offset);
        }
        Ok(reached)
    }

    /// With what came before this offset of the bus the tables of [`Events`](crate::Events), and what waits for them, are complete.
    pub async fn events_shown(&self) -> u64 {
        self.pending.read().await.offset
    }

    /// Puts what has tables of its own into them, once. When this returns a power cut loses nothing of them.
    ///
    /// # Errors
    /// They cannot be written now; trying again does no harm.
    pub async fn land(&self, written: &Written) -> Result<(), Error> {
        let mut pending = self.pending.write().await;
        for (_, table) in &self.events {
            let mut table = table.lock().await;
            if let Some(files) = written.files.get(table.name()) {
                table.append(&self.app, written.offset, files.clone()).await?;
                pending.landed(table.name());
            }
        }
        Ok(())
    }

    /// Shows rows that are in no table yet to whoever asks, in the place of those shown before.
    pub async fn show(&self, pending: Pending) {
        *self.pending.write().await = pending;
    }

    /// Every table as it is now, by its name, and what is in none yet, for queries.
    pub(crate) async fn providers(&self) -> Result<(Vec<(&'static str, Arc<dyn TableProvider>)>, Pending), Error> {
        let pending = self.pending.read().await;
        let mut providers = Vec::new();
        for table in self.all() {
            let mut table = table.lock().await;
            providers.push((table.name(), table.provider().await?));
        }
        Ok((providers, pending.clone()))
    }

    /// The requests that came before this offset and since this moment (µs), of each tenant, in the order of the bus: those
    /// that are recognised when they come again.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn requests(&self, before: u64, since_us: i64) -> Result<BTreeMap<TenantId, Vec<Request>>, Error> {
        let mut found: BTreeMap<TenantId, Vec<Request>> = BTreeMap::new();
        for (_, table) in &self.events {
            let mut table = table.lock().await;
            if !table.spec().own.iter().any(|column| column.name == "request") {
                continue;
            }
            for file in table.files().await?.iter().filter(|file| file.written_ms >= since_us / 1000) {
                let requests = rows::requests(table.open_file(file).await?)?.into_iter();
                let requests = requests.filter(|request| request.offset < before && request.received_us >= since_us);
                found.entry(file.tenant.clone()).or_default().extend(requests);
            }
        }
        for requests in found.values_mut() {
            requests.sort_unstable();
            requests.dedup();
        }
        Ok(found)
    }

    /// Up to which offset of the bus the samples are in the table; nothing was ever written without.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn reached(&self) -> Result<Option<u64>, Error> {
        self.samples.lock().await.reached(&self.app).await
    }

    /// Puts series and samples into the tables, once. When this returns a power cut loses nothing of them.
    ///
    /// # Errors
    /// They cannot be written now; trying again does no harm.
    pub async fn flush(&self, mut flush: Flush, new: &[NewSeries], received_at: Timestamp) -> Result<Landed, Error> {
        let offset = flush.offset;
        if !new.is_empty() {
            let files = series_files(new, offset, received_at)?;
            // Labels first: a number without samples misleads nobody.
            self.series.lock().await.append(&self.app, offset, files).await?;
        }
        let encoding = tokio::task::spawn_blocking(move || flush.close().map(|()| flush.full));
        let files = encoding.await.map_err(|error| Error::Unavailable(error.to_string()))??;
        self.samples.lock().await.append(&self.app, offset, files).await
    }

    /// Of each tenant the highest number of a series, and the series that were written by batches that end after this offset;
    /// all of them without one.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn series(&self, after: Option<u64>) -> Result<BTreeMap<TenantId, (i64, HashMap<Labels, i64>)>, Error> {
        let mut table = self.series.lock().await;
        table.reached(&self.app).await?;
        let mut found: BTreeMap<TenantId, (i64, HashMap<Labels, i64>)> = BTreeMap::new();
        for file in table.files().await? {
            let (highest, named) = found.entry(file.tenant.clone()).or_default();
            *highest = file.series.1.max(*highest);
            if after.is_none_or(|after| file.offset > after) {
                let labels = rows::labels(table.open_file(&file).await?, None)?;
                named.extend(labels.into_iter().map(|(id, labels)| (labels, id)));
            }
        }
        Ok(found)
    }

    /// The files of `silver.samples`.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn files(&self) -> Result<Vec<LiveFile>, Error> {
        self.samples.lock().await.files().await
    }

    /// A file of `silver.samples`, to read from.
    pub(crate) async fn open_samples(&self, file: &LiveFile) -> Result<Source, Error> {
        self.samples.lock().await.open_file(file).await
    }

    /// The files of `silver.series` that may name a tenant's series from this number on.
    pub(crate) async fn open_series(&self, tenant: &TenantId, from: i64) -> Result<Vec<Source>, Error> {
        let mut table = self.series.lock().await;
        let mut files = Vec::new();
        for file in table.files().await?.iter().filter(|file| file.tenant == *tenant && file.series.1 >= from) {
            files.push(table.open_file(file).await?);
        }
        Ok(files)
    }

    /// How much of a tenant's each table holds, and what of it the next turn of retention lets go.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn holdings(&self, tenant: &TenantId, now: Timestamp) -> Result<Vec<Holding>, Error> {
        let mut found = Vec::new();
        for table in self.all() {
            let mut table = table.lock().await;
            let mut holding = Holding { table: table.name(), files: 0, rows: 0, bytes: 0, outdated: 0 };
            for file in table.files().await?.iter().filter(|file| file.tenant == *tenant) {
                holding.files += 1;
                holding.rows += file.rows;
                holding.bytes += file.bytes;
                holding.outdated += if self.outdated(holding.table, file, now) { file.rows } else { 0 };
            }
            found.push(holding);
        }
        Ok(found)
    }

    /// The files of `silver.logs`.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn log_files(&self) -> Result<Vec<LiveFile>, Error> {
        match self.table(LOGS.name) {
            Some(table) => table.lock().await.files().await,
            None => Ok(Vec::new()),
        }
    }

    #[cfg(test)]
    pub(crate) async fn rows(&self, file: &LiveFile) -> Result<Vec<Row>, Error> {
        samples::read(self.samples.lock().await.read(file).await?)
    }
}

fn series_files(new: &[NewSeries], offset: u64, received_at: Timestamp) -> Result<Vec<DataFile>, Error> {
    let mut groups: BTreeMap<(&TenantId, i64), Vec<&NewSeries>> = BTreeMap::new();
    for series in new {
        groups.entry((&series.tenant, day_of(series.first_ms))).or_default().push(series);
    }
    let lineage = Lineage::of(offset, received_at);
    let file = |((tenant, day), all): ((&TenantId, i64), Vec<&NewSeries>)| {
        let mut rows = Rows::encoded(&SERIES, tenant.clone(), day)?;
        for series in &all {
            let own = [
                Cell::Long(series.id),
                Cell::Text(series.labels.name()),
                Cell::Labels(&series.labels),
                Cell::Moment(series.first_ms.saturating_mul(1000)),
            ];
            rows.push(&own, &lineage)?;
        }
        let mut file = rows.finish()?;
        let ids = || all.iter().map(|series| series.id);
        file.stats["minValues"] = serde_json::json!({ "series_id": ids().min() });
        file.stats["maxValues"] = serde_json::json!({ "series_id": ids().max() });
        Ok(file)
    };
    groups.into_iter().map(file).collect()
}

#[cfg(test)]
pub(crate) mod tests;
