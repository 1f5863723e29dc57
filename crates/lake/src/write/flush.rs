//! Writes batches of samples and new series to their tables.

use std::collections::{BTreeMap, HashMap};

use wardroom_domain::{Entity, Labels, Sample, TenantId, Timestamp};

use crate::error::Error;
use crate::format::data_file::{DataFile, FilePurpose, day_of};
use crate::format::row_buffer::{Cell, Lineage, RowBuffer};
use crate::format::row_reader::read_labels;
use crate::format::sample_file::{LONG_FILE_SPAN_MS, MAX_FILE_ROWS, SampleFileWriter};
use crate::format::table_schemas::SERIES;
use crate::lake::Lake;
use crate::table::delta_table::CommitOutcome;

/// A series that is not in the tables yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSeries {
    /// Tenant.
    pub tenant: TenantId,
    /// Id of the series in the lake.
    pub id: i64,
    /// Labels.
    pub labels: Labels,
    /// What the series is about; without a name if that is unknown.
    pub entity: Entity,
    /// Time of the first sample, in ms.
    pub first_ms: i64,
}

/// A batch of samples that becomes files.
pub struct Flush {
    offset: u64,
    open: BTreeMap<(TenantId, i64), SampleFileWriter>,
    pub(crate) full: Vec<DataFile>,
    run: Vec<(Sample, i64)>,
}

impl Flush {
    /// Creates an empty batch that ends before this bus offset.
    pub const fn new(offset: u64) -> Self {
        Self { offset, open: BTreeMap::new(), full: Vec::new(), run: Vec::new() }
    }

    /// Adds samples of one series, ascending by time. The series of a tenant must be added in order of their ids.
    ///
    /// # Errors
    /// Returns an error if the samples cannot be encoded.
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
                    // A file of this span is not merged again.
                    let long = last.ts_ms - first.ts_ms >= LONG_FILE_SPAN_MS;
                    let purpose = if long { FilePurpose::LongLived } else { FilePurpose::ShortLived };
                    self.open.entry(key.clone()).or_insert(SampleFileWriter::new(key.0.clone(), key.1, purpose)?)
                }
            };
            file.push(series_id, &self.run)?;
            if file.rows() >= MAX_FILE_ROWS
                && let Some(full) = self.open.remove(&key)
            {
                self.full.push(full.finish()?);
            }
        }
        Ok(())
    }

    /// Encodes all open files, so that only the store can fail afterwards.
    ///
    /// # Errors
    /// Returns an error if a file cannot be encoded.
    pub fn close(&mut self) -> Result<(), Error> {
        for (_, file) in std::mem::take(&mut self.open) {
            self.full.push(file.finish()?);
        }
        Ok(())
    }
}

impl Lake {
    /// Returns the bus offset up to which samples are committed; `None` before the first batch.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub async fn committed_offset(&self) -> Result<Option<u64>, Error> {
        self.samples.lock().await.reload_position(&self.app_id).await
    }

    /// Commits series and samples once. Both are synced when this returns.
    ///
    /// # Errors
    /// Returns an error if a table cannot be written now. Retrying is safe.
    pub async fn flush(
        &self,
        mut flush: Flush,
        new: &[NewSeries],
        received_at: Timestamp,
    ) -> Result<CommitOutcome, Error> {
        let offset = flush.offset;
        if !new.is_empty() {
            let files = series_files(new, offset, received_at)?;
            // Series first: samples without a label set could not be read, a label set without samples is harmless.
            self.series.lock().await.append(&self.app_id, offset, files).await?;
        }
        let encoding = tokio::task::spawn_blocking(move || flush.close().map(|()| flush.full));
        let files = encoding.await.map_err(|error| Error::Unavailable(error.to_string()))??;
        self.samples.lock().await.append(&self.app_id, offset, files).await
    }

    /// Checks that `silver.series` has the label sets of all samples. They are written first, and never removed:
    /// without them a query would find no sample, and say nothing.
    ///
    /// # Errors
    /// Returns an error if label sets are missing: the table was deleted, or replaced by an older copy. Also if a table
    /// cannot be read.
    pub async fn check_series(&self) -> Result<(), Error> {
        // Samples first: a server may be writing meanwhile.
        let samples = self.samples.lock().await.files().await?;
        let mut highest: BTreeMap<TenantId, i64> = BTreeMap::new();
        for file in self.series.lock().await.files().await? {
            let known = highest.entry(file.tenant).or_default();
            *known = file.series.1.max(*known);
        }
        let known = |tenant: &TenantId| highest.get(tenant).copied().unwrap_or_default();
        match samples.iter().find(|file| file.series.1 > known(&file.tenant)) {
            None => Ok(()),
            Some(file) => Err(Error::Damaged(format!(
                "silver.series ends at series {} of tenant {}, and silver.samples has samples up to series {}: the \
                 folder of silver.series was deleted, or an older copy put back. Put the newest one back, or restore a \
                 backup; or move the folders of both tables away to create new ones from what the bus still holds",
                known(&file.tenant),
                file.tenant,
                file.series.1
            ))),
        }
    }

    /// Returns for each tenant the highest series id, and the series of batches that end after this offset (all series
    /// if `None`).
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub async fn known_series(
        &self,
        after: Option<u64>,
    ) -> Result<BTreeMap<TenantId, (i64, HashMap<Labels, i64>)>, Error> {
        let mut table = self.series.lock().await;
        table.reload_position(&self.app_id).await?;
        let mut found: BTreeMap<TenantId, (i64, HashMap<Labels, i64>)> = BTreeMap::new();
        for file in table.files().await? {
            let (highest, named) = found.entry(file.tenant.clone()).or_default();
            *highest = file.series.1.max(*highest);
            if after.is_none_or(|after| file.offset > after) {
                let labels = read_labels(table.open_file(&file).await?, None)?;
                named.extend(labels.into_iter().map(|(id, labels)| (labels, id)));
            }
        }
        Ok(found)
    }
}

fn series_files(new: &[NewSeries], offset: u64, received_at: Timestamp) -> Result<Vec<DataFile>, Error> {
    let mut groups: BTreeMap<(&TenantId, i64), Vec<&NewSeries>> = BTreeMap::new();
    for series in new {
        groups.entry((&series.tenant, day_of(series.first_ms))).or_default().push(series);
    }
    let lineage = Lineage::new(offset, received_at);
    let file = |((tenant, day), all): ((&TenantId, i64), Vec<&NewSeries>)| {
        let mut rows = RowBuffer::streaming(&SERIES, tenant.clone(), day)?;
        for series in &all {
            let cells = [
                Cell::Long(series.id),
                Cell::Text(series.labels.name()),
                Cell::Labels(&series.labels),
                Cell::Timestamp(series.first_ms.saturating_mul(1000)),
            ];
            rows.push(&cells, Some(&series.entity), &lineage)?;
        }
        let mut file = rows.finish()?;
        let ids = || all.iter().map(|series| series.id);
        file.stats["minValues"] = serde_json::json!({ "series_id": ids().min() });
        file.stats["maxValues"] = serde_json::json!({ "series_id": ids().max() });
        Ok(file)
    };
    groups.into_iter().map(file).collect()
}
