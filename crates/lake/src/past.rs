//! Samples, log lines, spans and deployments out of the tables, second by second, for whoever goes through a stretch again.
//!
//! The files of the days that matter are read one by one, their times looked at first; rows come in the order of the bus.

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use deltalake_core::arrow::datatypes::ArrowPrimitiveType;
use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake_core::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use deltalake_core::parquet::file::statistics::Statistics;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{
    Deployment, Labels, LogEntry, NativeHistogram, Sample, Severity, Span, SpanKind, TenantId, Timestamp,
};

use crate::rows::named;
use crate::source::Source;
use crate::spec::{DEPLOYMENTS, LOGS, SPANS, Spec};
use crate::{Error, Lake};

/// Samples read at once.
const PAGE: usize = 1 << 20;

/// What the tables hold of a stretch.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The series that have samples in it.
    pub series: Vec<Labels>,
    /// What each second brought, by the seconds since the epoch.
    pub seconds: BTreeMap<i64, Moment>,
}

/// What a second brought.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Samples, each with its series' place in [`Past::series`].
    pub samples: Vec<(usize, Sample)>,
    /// Native histograms, likewise; those of a series by time.
    pub histograms: Vec<(usize, NativeHistogram)>,
    /// Log lines; the service is the one that was found when they came.
    pub logs: Vec<LogEntry>,
    /// Spans, by their ends.
    pub spans: Vec<Span>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
}

impl Past {
    fn at(&mut self, at: Timestamp) -> &mut Moment {
        self.seconds.entry(at.millis().div_euclid(1000)).or_default()
    }
}

impl Lake {
    /// Where the batch of samples ends that reaches to this offset of the bus or beyond, as far as files tell; at the offset
    /// itself without one.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn batch_end(&self, offset: u64) -> Result<u64, Error> {
        let ends = self.files().await?.into_iter().map(|file| file.offset).filter(|end| *end >= offset);
        Ok(ends.min().unwrap_or(offset))
    }

    /// What a tenant's tables hold from one moment until before another that came before an offset of the bus; of samples also
    /// the rest of the batch that the offset lies in. Files are read on the thread that asks.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn past(
        &self,
        tenant: &TenantId,
        (from, to): (Timestamp, Timestamp),
        before: u64,
    ) -> Result<Past, Error> {
        let mut past = Past::default();
        let end = Timestamp::from_millis(to.millis() - 1);
        let query = SeriesQuery { selectors: Vec::new(), start: from, end, step_ms: None };
        let (mut page, batch_end) = (Some(0), self.batch_end(before).await?);
        while let Some(first) = page {
            let stored = self.samples(tenant, &query, (first, batch_end), PAGE).await?;
            for (labels, samples) in stored.series {
                let series = past.series.len();
                past.series.push(labels);
                for sample in samples {
                    past.at(Timestamp::from_millis(sample.ts_ms)).samples.push((series, sample));
                }
            }
            page = stored.next;
        }
        self.past_histograms(tenant, query, before, &mut past).await?;
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let within = |at: Timestamp, offset: i64| (from..to).contains(&at) && offset < before;
        for batch in self.stretch(&LOGS, tenant, from, to).await? {
            let rows = Columns { spec: &LOGS, batch: &batch };
            for row in 0..batch.num_rows() {
                let at = rows.at(row)?;
                if within(at, rows.offset(row)?) {
                    past.at(at).logs.push(LogEntry {
                        at,
                        severity: severity(rows.text("severity", row)?),
                        message: rows.text("message", row)?.to_owned(),
                        service: rows.text("service", row)?.to_owned(),
                        labels: rows.labels("labels", row)?,
                    });
                }
            }
        }
        for batch in self.stretch(&SPANS, tenant, from, to).await? {
            let rows = Columns { spec: &SPANS, batch: &batch };
            for row in 0..batch.num_rows() {
                let span = rows.span(row)?;
                if within(span.end, rows.offset(row)?) {
                    past.at(span.end).spans.push(span);
                }
            }
        }
        for batch in self.stretch(&DEPLOYMENTS, tenant, from, to).await? {
            let rows = Columns { spec: &DEPLOYMENTS, batch: &batch };
            for row in 0..batch.num_rows() {
                let at = rows.at(row)?;
                if within(at, rows.offset(row)?) {
                    past.at(at).deployments.push(Deployment {
                        at,
                        service: rows.text("service", row)?.to_owned(),
                        version: rows.text("version", row)?.to_owned(),
                        status: rows.text("status", row)?.to_owned(),
                        metadata: rows.labels("labels", row)?,
                    });
                }
            }
        }
        Ok(past)
    }

    async fn past_histograms(
        &self,
        tenant: &TenantId,
        mut query: SeriesQuery,
        before: u64,
        past: &mut Past,
    ) -> Result<(), Error> {
        let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
        let mut next = Some(query.start);
        while let Some(start) = next {
            query.start = start;
            let page = self.histograms(tenant, &query, before).await?;
            for (labels, histogram) in page.found {
                let series = *places.entry(labels).or_insert_with_key(|labels| {
                    past.series.push(labels.clone());
                    past.series.len() - 1
                });
                past.at(Timestamp::from_millis(histogram.ts_ms)).histograms.push((series, histogram));
            }
            next = page.next_ms.map(Timestamp::from_millis);
        }
        let moments = past.seconds.values_mut();
        moments.for_each(|moment| moment.histograms.sort_by_key(|(_, histogram)| histogram.ts_ms));
        Ok(())
    }

    /// The rows of the files of a table that may hold something of a stretch.
    async fn stretch(
        &self,
        spec: &'static Spec,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecordBatch>, Error> {
        let Some(table) = self.table(spec.name) else { return Ok(Vec::new()) };
        let mut table = table.lock().await;
        let mut files = table.files().await?;
        // A span's own time is its start, and it stands under the day of its end.
        let days = |at: Timestamp| crate::samples::day_of(at.millis());
        files.retain(|file| {
            let (first_ms, last_ms) = file.span_ms;
            let apart = first_ms >= to.millis() || (last_ms < from.millis() && spec.name != SPANS.name);
            file.tenant == *tenant && (days(from)..=days(to)).contains(&file.day) && !apart
        });
        files.sort_unstable_by_key(|file| file.offset);
        let mut batches = Vec::new();
        for file in &files {
            batches.extend(rows(table.open_file(file).await?, spec, (from, to), None)?);
        }
        Ok(batches)
    }
}

/// The rows of a file's groups that may hold something between two moments; only those with one of these names, if any are given
/// (the table has to have a column for it).
pub(crate) fn rows(
    file: Source,
    spec: &'static Spec,
    (from, to): (Timestamp, Timestamp),
    names: Option<BTreeSet<String>>,
) -> Result<Vec<RecordBatch>, Error> {
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let micros = |at: Timestamp| at.nanos().div_euclid(1000);
    let groups = overlapping(reader.metadata(), micros(from), micros(to), spec.name == SPANS.name);
    if let Some(names) = names {
        let named = named(reader.parquet_schema(), names);
        reader = reader.with_row_filter(named);
    }
    Ok(reader.with_row_groups(groups).build()?.collect::<Result<_, _>>()?)
}

/// The groups of rows of a file that may have some between two moments (in microseconds), by the column `ts`; if that is where
/// something begins, also those that began before.
fn overlapping(file: &ParquetMetaData, from_us: i64, to_us: i64, begins: bool) -> Vec<usize> {
    let within = |group: &RowGroupMetaData| {
        let column = group.columns().iter().find(|column| column.column_path().string() == "ts");
        let Some(Statistics::Int64(times)) = column.and_then(|column| column.statistics()) else { return true };
        let (first, last) = (times.min_opt().copied(), times.max_opt().copied());
        first.is_none_or(|first| first < to_us) && (begins || last.is_none_or(|last| last >= from_us))
    };
    (0..file.num_row_groups()).filter(|group| within(file.row_group(*group))).collect()
}

/// The columns of a batch, by name.
pub(crate) struct Columns<'a> {
    pub(crate) spec: &'static Spec,
    pub(crate) batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef, Error> {
        self.batch.column_by_name(name).ok_or_else(|| self.odd(name))
    }

    pub(crate) fn odd(&self, name: &str) -> Error {
        Error::Damaged(format!("{}.{name} is missing or of another type", self.spec.name))
    }

    pub(crate) fn of<T: Array + 'static>(&self, name: &str) -> Result<&T, Error> {
        self.column(name)?.as_any().downcast_ref().ok_or_else(|| self.odd(name))
    }

    pub(crate) fn text(&self, name: &str, row: usize) -> Result<&str, Error> {
        Ok(self.column(name)?.as_string_opt::<i32>().ok_or_else(|| self.odd(name))?.value(row))
    }

    /// The offset of a row's request on the bus.
    pub(crate) fn offset(&self, row: usize) -> Result<i64, Error> {
        Ok(self.of::<Int64Array>("offset")?.value(row))
    }

    /// A row's own time, in ms.
    pub(crate) fn millis(&self, row: usize) -> Result<i64, Error> {
        Ok(self.of::<TimestampMicrosecondArray>("ts")?.value(row).div_euclid(1000))
    }

    /// The numbers in a row's list.
    pub(crate) fn list<T: ArrowPrimitiveType>(&self, name: &str, row: usize) -> Result<Vec<T::Native>, Error> {
        let list = self.column(name)?.as_list_opt::<i32>().ok_or_else(|| self.odd(name))?.value(row);
        Ok(list.as_primitive_opt::<T>().ok_or_else(|| self.odd(name))?.values().to_vec())
    }

    /// A row's own time, to the nanosecond.
    fn at(&self, row: usize) -> Result<Timestamp, Error> {
        let micros = self.of::<TimestampMicrosecondArray>("ts")?.value(row);
        let beyond = self.of::<Int32Array>("nanos")?.value(row);
        Ok(Timestamp::from_nanos(micros.saturating_mul(1000).saturating_add(beyond.into())))
    }

    pub(crate) fn labels(&self, name: &str, row: usize) -> Result<Labels, Error> {
        let pairs = self.of::<MapArray>(name)?.value(row);
        let texts = |column: usize| {
            pairs.column(column).as_any().downcast_ref::<StringArray>().cloned().ok_or_else(|| self.odd(name))
        };
        let (names, values) = (texts(0)?, texts(1)?);
        Ok(Labels::new((0..names.len()).map(|at| (names.value(at), values.value(at))).collect()))
    }

    fn span(&self, row: usize) -> Result<Span, Error> {
        let start = self.at(row)?;
        let kind = self.text("kind", row)?;
        let parent = self.column("parent_id")?.as_string_opt::<i32>().ok_or_else(|| self.odd("parent_id"))?;
        let parent = if parent.is_valid(row) { parent.value(row) } else { "" };
        Ok(Span {
            trace_id: bytes(self.text("trace_id", row)?),
            span_id: bytes(self.text("span_id", row)?),
            parent_id: bytes(parent),
            name: self.text("name", row)?.to_owned(),
            kind: SpanKind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(SpanKind::Internal),
            start,
            end: Timestamp::from_nanos(start.nanos().saturating_add(self.of::<Int64Array>("duration_ns")?.value(row))),
            failed: self.of::<BooleanArray>("failed")?.value(row),
            labels: self.labels("labels", row)?,
        })
    }
}

fn severity(word: &str) -> Severity {
    let known = [Severity::Critical, Severity::High, Severity::Warning];
    known.into_iter().find(|severity| severity.as_str() == word).unwrap_or(Severity::Info)
}

/// An id of so many bytes out of its hexadecimal digits; zeros where there are none.
fn bytes<const N: usize>(digits: &str) -> [u8; N] {
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
    }
    id
}
