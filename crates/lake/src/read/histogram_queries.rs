//! Reads native histograms and exemplars of series.
//!
//! They are fewer than samples but larger, and have separate tables with labels in each row. A page is a time
//! range, short enough that the files hold a bounded number of rows for it.

use std::collections::BTreeSet;

use deltalake_core::arrow::array::{Float64Array, Int32Array, RecordBatch};
use deltalake_core::arrow::datatypes::{Float64Type, Int64Type};
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Buckets, Exemplar, Labels, NativeHistogram, TenantId, Timestamp};

use crate::error::Error;
use crate::format::row_reader::{TableBatch, read_rows};
use crate::format::schema::TableSchema;
use crate::format::table_schemas::{EXEMPLARS, HISTOGRAMS, RESET_HINTS};
use crate::lake::Lake;
use crate::read::sample_queries::metric_names;
use crate::table::live_file::LiveFile;

/// Approximate maximum number of rows read for a page.
const MAX_PAGE_ROWS: u64 = 200_000;
/// Pages start at a multiple of this, in ms.
const PAGE_ALIGN_MS: i64 = 60_000;

/// A page of histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramPage {
    /// Histograms with their series, in no particular order.
    pub found: Vec<(Labels, NativeHistogram)>,
    /// Start of the next page, a whole minute in ms; `None` on the last page.
    pub next_ms: Option<i64>,
}

impl Lake {
    /// Reads the first page of a query's native histograms before this bus offset, including pending rows.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub async fn read_histograms(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        before: u64,
    ) -> Result<HistogramPage, Error> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let Some((last_ms, batches)) = self.read_page(&HISTOGRAMS, tenant, query).await? else {
            return Ok(HistogramPage::default());
        };
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let mut page = HistogramPage { found: Vec::new(), next_ms: (last_ms < end_ms).then_some(last_ms + 1) };
        for batch in &batches {
            let rows = TableBatch { schema: &HISTOGRAMS, batch };
            for row in 0..batch.num_rows() {
                let at_ms = rows.millis(row)?;
                if !(start_ms..=last_ms).contains(&at_ms) || rows.offset(row)? >= before {
                    continue;
                }
                let labels = rows.labels("labels", row)?;
                if query.selects(&labels) {
                    page.found.push((labels, histogram(&rows, row, at_ms)?));
                }
            }
        }
        Ok(page)
    }

    /// Reads a query's exemplars, including pending rows, up to a maximum number.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub async fn read_exemplars(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        max_exemplars: usize,
    ) -> Result<Vec<(Labels, Exemplar)>, Error> {
        let (mut found, mut query) = (Vec::new(), query.clone());
        while let Some((last_ms, batches)) = self.read_page(&EXEMPLARS, tenant, &query).await? {
            for batch in &batches {
                let rows = TableBatch { schema: &EXEMPLARS, batch };
                let values = rows.column_as::<Float64Array>("value")?;
                for row in 0..batch.num_rows() {
                    let ts_ms = rows.millis(row)?;
                    if !(query.start.millis()..=last_ms).contains(&ts_ms) {
                        continue;
                    }
                    let series = rows.labels("labels", row)?;
                    if query.selects(&series) && found.len() < max_exemplars {
                        let labels = rows.labels("exemplar", row)?;
                        found.push((series, Exemplar { labels, value: values.value(row), ts_ms }));
                    }
                }
            }
            if last_ms >= query.end.millis() || found.len() >= max_exemplars {
                break;
            }
            query.start = Timestamp::from_millis(last_ms + 1);
        }
        Ok(found)
    }

    /// Reads the rows that may match, from the query's start to the returned time (ms). Returns `None` if there are no
    /// rows at all.
    async fn read_page(
        &self,
        schema: &'static TableSchema,
        tenant: &TenantId,
        query: &SeriesQuery,
    ) -> Result<Option<(i64, Vec<RecordBatch>)>, Error> {
        let Some(table) = self.table(schema.name) else { return Ok(None) };
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        // Locked until the files are listed, so that each row is found once.
        let pending = self.pending.read().await;
        let mut files = table.lock().await.files().await?;
        files.retain(|file| file.tenant == *tenant && file.span_ms.0 <= end_ms && file.span_ms.1 >= start_ms);
        let pending_batches = pending.batches(schema.name, tenant)?;
        drop(pending);
        if files.is_empty() && pending_batches.is_empty() {
            return Ok(None);
        }
        let last_ms = page_end(&files, start_ms, end_ms);
        files.retain(|file| file.span_ms.0 <= last_ms);
        files.sort_unstable_by_key(|file| file.offset);
        let names: Option<BTreeSet<String>> =
            metric_names(query).map(|names| names.into_iter().map(str::to_owned).collect());
        let range = (Timestamp::from_millis(start_ms), Timestamp::from_millis(last_ms.saturating_add(1)));
        let mut batches = Vec::new();
        for file in &files {
            let source = table.lock().await.open_file(file).await?;
            batches.extend(read_rows(source, schema, range, names.clone())?);
        }
        batches.extend(pending_batches);
        Ok(Some((last_ms, batches)))
    }
}

/// Returns the end of a page from `start_ms` for which the files hold about [`MAX_PAGE_ROWS`]: the range is halved
/// until it fits.
fn page_end(files: &[LiveFile], start_ms: i64, end_ms: i64) -> i64 {
    let last = files.iter().map(|file| file.span_ms.1).max().unwrap_or(end_ms).min(end_ms);
    let first = files.iter().map(|file| file.span_ms.0).min().unwrap_or(start_ms).max(start_ms);
    let rows_to = |to_ms: i64| -> u64 {
        let share = |file: &LiveFile| {
            let (from, to) = (file.span_ms.0.max(first), file.span_ms.1.min(to_ms));
            let file_span = (file.span_ms.1 - file.span_ms.0).max(1);
            (file.rows as f64 * ((to - from).max(0) as f64 / file_span as f64).min(1.0)) as u64
        };
        files.iter().map(share).sum()
    };
    let mut width = (last - first).max(0);
    while width > 2 * PAGE_ALIGN_MS && rows_to(first + width) > MAX_PAGE_ROWS {
        width /= 2;
    }
    let end = (first + width).div_euclid(PAGE_ALIGN_MS) * PAGE_ALIGN_MS;
    if first + width >= last { end_ms } else { end - 1 }
}

fn histogram(rows: &TableBatch<'_>, row: usize, ts_ms: i64) -> Result<NativeHistogram, Error> {
    let double = |name: &str| Ok::<_, Error>(rows.column_as::<Float64Array>(name)?.value(row));
    let hint = rows.text("reset_hint", row)?;
    Ok(NativeHistogram {
        ts_ms,
        count: double("count")?,
        sum: double("sum")?,
        schema: rows.column_as::<Int32Array>("schema")?.value(row),
        zero_threshold: double("zero_threshold")?,
        zero_count: double("zero_count")?,
        positive: buckets(rows, "positive_spans", "positive_counts", row)?,
        negative: buckets(rows, "negative_spans", "negative_counts", row)?,
        bounds: rows.list::<Float64Type>("bounds", row)?,
        reset_hint: RESET_HINTS.iter().position(|known| *known == hint).unwrap_or_default() as u8,
    })
}

fn buckets(rows: &TableBatch<'_>, spans: &str, counts: &str, row: usize) -> Result<Buckets, Error> {
    let flat = rows.list::<Int64Type>(spans, row)?;
    let (pairs, _) = flat.as_chunks::<2>();
    let span = |[offset, length]: [i64; 2]| Some((i32::try_from(offset).ok()?, u32::try_from(length).ok()?));
    let spans =
        pairs.iter().map(|pair| span(*pair).ok_or_else(|| rows.column_error(spans))).collect::<Result<_, _>>()?;
    Ok(Buckets { spans, counts: rows.list::<Float64Type>(counts, row)? })
}
