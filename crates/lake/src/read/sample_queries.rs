//! Reads samples of series (ADR 004).
//!
//! Problem: a day of one series out of a hundred thousand must cost milliseconds. Model: the selected label sets are
//! mapped to series ids. The table's log tells which files may hold these ids, and a file's page index which pages.
//! Files are sorted by series and merged on the fly; each is opened when its first selected series is next, those due
//! at the same time in parallel, so that memory holds a page of each. Of samples at one time the latest wins, as in a
//! merge.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Matcher, Sample, TenantId};

use crate::error::Error;
use crate::format::parquet_source::ParquetSource;
use crate::format::row_reader::read_labels;
use crate::format::sorted_run::{SortedRun, keep_latest};
use crate::lake::Lake;
use crate::table::live_file::LiveFile;

/// Label that holds the metric name.
const NAME_LABEL: &str = "__name__";

/// Maximum number of files opened in parallel.
const MAX_PARALLEL_OPENS: usize = 16;

/// A page of samples.
#[derive(Clone, Debug, Default)]
pub struct SamplePage {
    /// Series in order of their ids, with their samples by time.
    pub series: Vec<(Labels, Vec<Sample>)>,
    /// Id of the next series; `None` on the last page.
    pub next: Option<i64>,
}

impl Lake {
    /// Reads about `max_samples` samples of a query (ignoring its step) committed up to the bus offset `before`, from
    /// the series id `from` on. Files are read on the calling thread.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn read_samples(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        (from, before): (i64, u64),
        max_samples: usize,
    ) -> Result<SamplePage, Error> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let mut files = self.sample_files().await?;
        files.retain(|file| {
            let (first_ms, last_ms) = file.span_ms;
            file.tenant == *tenant && first_ms <= end_ms && last_ms >= start_ms && file.series.1 >= from
        });
        let mut page = SamplePage::default();
        if files.is_empty() {
            return Ok(page);
        }
        let mut selected = self.select_series(tenant, query, from).await?;
        let ids: Vec<i64> = selected.keys().copied().collect();
        files.retain(|file| {
            let next = ids.partition_point(|id| *id < file.series.0);
            ids.get(next).is_some_and(|id| *id <= file.series.1)
        });
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.series.0));
        let (mut runs, mut all, mut page_samples) = (Vec::<SortedRun>::new(), Vec::new(), 0);
        loop {
            let mut lowest = None;
            for run in &mut runs {
                lowest = lowest.into_iter().chain(run.next_series()?).min();
            }
            // Files that may hold the next series. Before the first file is open, the next series comes from the log.
            let first = |file: &LiveFile| ids.get(ids.partition_point(|id| *id < file.series.0)).copied();
            let next = lowest.or_else(|| first(files.last()?));
            let mut due = Vec::new();
            while due.len() < MAX_PARALLEL_OPENS
                && let Some(file) = files.pop_if(|file| next.is_some_and(|next| file.series.0 <= next))
            {
                due.push(self.open_sample_file(&file).await?);
            }
            if !due.is_empty() {
                runs.extend(open_runs(due, &ids)?);
                continue;
            }
            let Some(series) = lowest else { return Ok(page) };
            if page_samples >= max_samples {
                page.next = Some(series);
                return Ok(page);
            }
            all.clear();
            for run in &mut runs {
                run.take_series(series, &mut all)?;
            }
            let mut open = Vec::with_capacity(runs.len());
            for mut run in runs {
                if run.next_series()?.is_some() {
                    open.push(run);
                }
            }
            runs = open;
            // Pages also hold neighbouring series.
            let Some(labels) = selected.remove(&series) else { continue };
            all.retain(|(sample, offset)| {
                (start_ms..=end_ms).contains(&sample.ts_ms)
                    && u64::try_from(*offset).is_ok_and(|offset| offset <= before)
            });
            keep_latest(&mut all);
            page_samples += all.len();
            if !all.is_empty() {
                page.series.push((labels, all.iter().map(|(sample, _)| *sample).collect()));
            }
        }
    }

    /// Opens the files of `silver.series` that may hold a tenant's series from this id on.
    async fn open_series(&self, tenant: &TenantId, from: i64) -> Result<Vec<ParquetSource>, Error> {
        let mut table = self.series.lock().await;
        let mut files = Vec::new();
        for file in table.files().await?.iter().filter(|file| file.tenant == *tenant && file.series.1 >= from) {
            files.push(table.open_file(file).await?);
        }
        Ok(files)
    }

    /// Returns the series that a query selects, from this id on.
    async fn select_series(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        from: i64,
    ) -> Result<BTreeMap<i64, Labels>, Error> {
        let names = metric_names(query);
        let mut found = BTreeMap::new();
        for file in self.open_series(tenant, from).await? {
            let labels = read_labels(file, names.as_ref())?.into_iter();
            found.extend(labels.filter(|(id, labels)| *id >= from && query.selects(labels)));
        }
        Ok(found)
    }
}

/// Opens files in parallel and reads their first page: most of the time is spent waiting for the disk.
fn open_runs(files: Vec<ParquetSource>, ids: &[i64]) -> Result<Vec<SortedRun>, Error> {
    std::thread::scope(|scope| {
        let open = |file| {
            scope.spawn(move || {
                let mut run = SortedRun::open(file, Some(ids))?;
                run.next_series().map(|_| run)
            })
        };
        let opened: Vec<_> = files.into_iter().map(open).collect();
        opened.into_iter().map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Returns the metric names that a query can match, or `None` for any.
pub(crate) fn metric_names(query: &SeriesQuery) -> Option<BTreeSet<&str>> {
    if query.selectors.is_empty() {
        return None;
    }
    query.selectors.iter().map(|selector| metric_name(selector)).collect()
}

fn metric_name(selector: &[Matcher]) -> Option<&str> {
    selector.iter().filter(|matcher| matcher.name == NAME_LABEL).find_map(Matcher::only_value)
}
