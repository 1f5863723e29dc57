//! Native histograms and exemplars of series, out of their tables.
//!
//! They are few beside samples, and each is large, so they stand in tables of their own with their labels beside them. A page is a
//! stretch of time: as long as what the files may hold of it is not too much to be read at once.

use std::collections::BTreeSet;

use deltalake_core::arrow::array::{Float64Array, Int32Array, RecordBatch};
use deltalake_core::arrow::datatypes::{Float64Type, Int64Type};
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Buckets, Exemplar, Labels, NativeHistogram, TenantId, Timestamp};

use crate::events::RESET_HINTS;
use crate::past::Columns;
use crate::read::names;
use crate::spec::{EXEMPLARS, HISTOGRAMS, Spec};
use crate::table::LiveFile;
use crate::{Error, Lake};

/// Rows that one page may have to look at, about.
const MOST: u64 = 200_000;
/// Pages begin at a multiple of this, in ms.
const LEAST_MS: i64 = 60_000;

/// A page of histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histograms {
    /// Each under its series; those of one series by no order.
    pub found: Vec<(Labels, NativeHistogram)>,
    /// Where the next page begins if there is more to look at, in ms: a whole minute.
    pub next_ms: Option<i64>,
}

impl Lake {
    /// The native histograms a query asks for that came before this offset of the bus, those that wait to be written among them:
    /// of a stretch that begins with the query's.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn histograms(&self, tenant: &TenantId, query: &SeriesQuery, before: u64) -> Result<Histograms, Error> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let Some((last_ms, batches)) = self.beside(&HISTOGRAMS, tenant, query).await? else {
            return Ok(Histograms::default());
        };
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let mut page = Histograms { found: Vec::new(), next_ms: (last_ms < end_ms).then_some(last_ms + 1) };
        for batch in &batches {
            let rows = Columns { spec: &HISTOGRAMS, batch };
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

    /// The exemplars a query asks for, those that wait to be written among them; so many at most.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn exemplars(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        most: usize,
    ) -> Result<Vec<(Labels, Exemplar)>, Error> {
        let (mut found, mut query) = (Vec::new(), query.clone());
        while let Some((last_ms, batches)) = self.beside(&EXEMPLARS, tenant, &query).await? {
            for batch in &batches {
                let rows = Columns { spec: &EXEMPLARS, batch };
                let values = rows.of::<Float64Array>("value")?;
                for row in 0..batch.num_rows() {
                    let ts_ms = rows.millis(row)?;
                    if !(query.start.millis()..=last_ms).contains(&ts_ms) {
                        continue;
                    }
                    let series = rows.labels("labels", row)?;
                    if query.selects(&series) && found.len() < most {
                        let labels = rows.labels("exemplar", row)?;
                        found.push((series, Exemplar { labels, value: values.value(row), ts_ms }));
                    }
                }
            }
            if last_ms >= query.end.millis() || found.len() >= most {
                break;
            }
            query.start = Timestamp::from_millis(last_ms + 1);
        }
        Ok(found)
    }

    /// Rows of a table of series' things that may be asked for, of a stretch from the query's start to the moment that comes
    /// first, in ms. Nothing without any rows at all.
    async fn beside(
        &self,
        spec: &'static Spec,
        tenant: &TenantId,
        query: &SeriesQuery,
    ) -> Result<Option<(i64, Vec<RecordBatch>)>, Error> {
        let Some(table) = self.table(spec.name) else { return Ok(None) };
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        // Held until the files are known, so that each row is found once.
        let pending = self.pending.read().await;
        let mut files = table.lock().await.files().await?;
        files.retain(|file| file.tenant == *tenant && file.span_ms.0 <= end_ms && file.span_ms.1 >= start_ms);
        let waiting = pending.of(spec.name, tenant)?;
        drop(pending);
        if files.is_empty() && waiting.is_empty() {
            return Ok(None);
        }
        let last_ms = stretch(&files, start_ms, end_ms);
        files.retain(|file| file.span_ms.0 <= last_ms);
        files.sort_unstable_by_key(|file| file.offset);
        let names: Option<BTreeSet<String>> = names(query).map(|names| names.into_iter().map(str::to_owned).collect());
        let stretch = (Timestamp::from_millis(start_ms), Timestamp::from_millis(last_ms.saturating_add(1)));
        let mut batches = Vec::new();
        for file in &files {
            let source = table.lock().await.open_file(file).await?;
            batches.extend(crate::past::rows(source, spec, stretch, names.clone())?);
        }
        batches.extend(waiting);
        Ok(Some((last_ms, batches)))
    }
}

/// The end of a stretch from `start_ms` on of which files hold about [`MOST`] rows: halved until it does.
fn stretch(files: &[LiveFile], start_ms: i64, end_ms: i64) -> i64 {
    let last = files.iter().map(|file| file.span_ms.1).max().unwrap_or(end_ms).min(end_ms);
    let first = files.iter().map(|file| file.span_ms.0).min().unwrap_or(start_ms).max(start_ms);
    let rows_to = |to_ms: i64| -> u64 {
        let share = |file: &LiveFile| {
            let (from, to) = (file.span_ms.0.max(first), file.span_ms.1.min(to_ms));
            let whole = (file.span_ms.1 - file.span_ms.0).max(1);
            (file.rows as f64 * ((to - from).max(0) as f64 / whole as f64).min(1.0)) as u64
        };
        files.iter().map(share).sum()
    };
    let mut width = (last - first).max(0);
    while width > 2 * LEAST_MS && rows_to(first + width) > MOST {
        width /= 2;
    }
    let end = (first + width).div_euclid(LEAST_MS) * LEAST_MS;
    if first + width >= last { end_ms } else { end - 1 }
}

fn histogram(rows: &Columns<'_>, row: usize, ts_ms: i64) -> Result<NativeHistogram, Error> {
    let double = |name: &str| Ok::<_, Error>(rows.of::<Float64Array>(name)?.value(row));
    let hint = rows.text("reset_hint", row)?;
    Ok(NativeHistogram {
        ts_ms,
        count: double("count")?,
        sum: double("sum")?,
        schema: rows.of::<Int32Array>("schema")?.value(row),
        zero_threshold: double("zero_threshold")?,
        zero_count: double("zero_count")?,
        positive: buckets(rows, "positive_spans", "positive_counts", row)?,
        negative: buckets(rows, "negative_spans", "negative_counts", row)?,
        bounds: rows.list::<Float64Type>("bounds", row)?,
        reset_hint: RESET_HINTS.iter().position(|known| *known == hint).unwrap_or_default() as u8,
    })
}

fn buckets(rows: &Columns<'_>, spans: &str, counts: &str, row: usize) -> Result<Buckets, Error> {
    let flat = rows.list::<Int64Type>(spans, row)?;
    let (pairs, _) = flat.as_chunks::<2>();
    let span = |[offset, length]: [i64; 2]| Some((i32::try_from(offset).ok()?, u32::try_from(length).ok()?));
    let spans = pairs.iter().map(|pair| span(*pair).ok_or_else(|| rows.odd(spans))).collect::<Result<_, _>>()?;
    Ok(Buckets { spans, counts: rows.list::<Float64Type>(counts, row)? })
}
