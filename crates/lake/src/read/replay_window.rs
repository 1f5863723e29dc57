//! Reads samples, histograms, log lines, spans and deployments of a time range second by second, for a replay.
//!
//! The files of the days concerned are read one by one, without row groups outside the range. Rows are in bus order.

use std::collections::BTreeMap;

use deltalake_core::arrow::array::RecordBatch;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{
    Deployment, Event, EventKind, Labels, LogEntry, NativeHistogram, Sample, Span, TenantId, Timestamp,
};

use crate::error::Error;
use crate::format::data_file::day_of;
use crate::format::row_reader::{TableBatch, parse_severity, read_rows};
use crate::format::schema::TableSchema;
use crate::format::table_schemas::{DEPLOYMENTS, EVENTS, LOGS, SPANS};
use crate::lake::Lake;

/// Samples read at a time.
const PAGE_SAMPLES: usize = 1 << 20;

/// Telemetry of a time range.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// Series with samples or histograms in the range.
    pub series: Vec<Labels>,
    /// Telemetry by second since the epoch.
    pub seconds: BTreeMap<i64, ReplaySecond>,
}

/// Telemetry of one second.
#[derive(Clone, Debug, Default)]
pub struct ReplaySecond {
    /// Samples, each with an index into [`ReplayWindow::series`].
    pub samples: Vec<(usize, Sample)>,
    /// Native histograms, likewise; those of a series by time.
    pub histograms: Vec<(usize, NativeHistogram)>,
    /// Log lines with the service that was determined on arrival.
    pub logs: Vec<LogEntry>,
    /// Spans, by their end.
    pub spans: Vec<Span>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
}

impl ReplayWindow {
    fn second_mut(&mut self, at: Timestamp) -> &mut ReplaySecond {
        self.seconds.entry(at.millis().div_euclid(1000)).or_default()
    }
}

impl Lake {
    /// Returns the end of the batch of samples that includes this bus offset, or the offset itself if there is none.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    async fn batch_end(&self, offset: u64) -> Result<u64, Error> {
        let ends = self.sample_files().await?.into_iter().map(|file| file.offset).filter(|end| *end >= offset);
        Ok(ends.min().unwrap_or(offset))
    }

    /// Reads a tenant's telemetry from `from` until before `to` that came before a bus offset. Samples include the rest
    /// of the batch that the offset is in. Files are read on the calling thread.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn read_replay_window(
        &self,
        tenant: &TenantId,
        (from, to): (Timestamp, Timestamp),
        before: u64,
    ) -> Result<ReplayWindow, Error> {
        let mut window = ReplayWindow::default();
        let end = Timestamp::from_millis(to.millis() - 1);
        let query = SeriesQuery { selectors: Vec::new(), start: from, end, step_ms: None };
        let (mut page, batch_end) = (Some(0), self.batch_end(before).await?);
        while let Some(first) = page {
            let stored = self.read_samples(tenant, &query, (first, batch_end), PAGE_SAMPLES).await?;
            for (labels, samples) in stored.series {
                let series = window.series.len();
                window.series.push(labels);
                for sample in samples {
                    window.second_mut(Timestamp::from_millis(sample.ts_ms)).samples.push((series, sample));
                }
            }
            page = stored.next;
        }
        self.add_histograms(tenant, query, before, &mut window).await?;
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let is_in_window = |at: Timestamp, offset: i64| (from..to).contains(&at) && offset < before;
        for batch in self.read_time_range(&LOGS, tenant, from, to).await? {
            let rows = TableBatch { schema: &LOGS, batch: &batch };
            for row in 0..batch.num_rows() {
                let at = rows.timestamp(row)?;
                if is_in_window(at, rows.offset(row)?) {
                    window.second_mut(at).logs.push(LogEntry {
                        at,
                        severity: parse_severity(rows.text("severity", row)?),
                        message: rows.text("message", row)?.to_owned(),
                        service: rows.text("service", row)?.to_owned(),
                        labels: rows.labels("labels", row)?,
                    });
                }
            }
        }
        for batch in self.read_time_range(&SPANS, tenant, from, to).await? {
            let rows = TableBatch { schema: &SPANS, batch: &batch };
            for row in 0..batch.num_rows() {
                let span = rows.span(row)?;
                if is_in_window(span.end, rows.offset(row)?) {
                    window.second_mut(span.end).spans.push(span);
                }
            }
        }
        for (schema, attributes) in [(&DEPLOYMENTS, "labels"), (&EVENTS, "attributes")] {
            for batch in self.read_time_range(schema, tenant, from, to).await? {
                let rows = TableBatch { schema, batch: &batch };
                for row in 0..batch.num_rows() {
                    let at = rows.timestamp(row)?;
                    if is_in_window(at, rows.offset(row)?) && is_reported_deployment(&rows, row)? {
                        window.second_mut(at).deployments.push(Deployment {
                            at,
                            service: rows.text("service", row)?.to_owned(),
                            version: rows.text("version", row)?.to_owned(),
                            status: rows.text("status", row)?.to_owned(),
                            metadata: rows.labels(attributes, row)?,
                        });
                    }
                }
            }
        }
        Ok(window)
    }

    async fn add_histograms(
        &self,
        tenant: &TenantId,
        mut query: SeriesQuery,
        before: u64,
        window: &mut ReplayWindow,
    ) -> Result<(), Error> {
        let mut indices: BTreeMap<Labels, usize> = BTreeMap::new();
        let mut next = Some(query.start);
        while let Some(start) = next {
            query.start = start;
            let page = self.read_histograms(tenant, &query, before).await?;
            for (labels, histogram) in page.found {
                let series = *indices.entry(labels).or_insert_with_key(|labels| {
                    window.series.push(labels.clone());
                    window.series.len() - 1
                });
                window.second_mut(Timestamp::from_millis(histogram.ts_ms)).histograms.push((series, histogram));
            }
            next = page.next_ms.map(Timestamp::from_millis);
        }
        let seconds = window.seconds.values_mut();
        seconds.for_each(|second| second.histograms.sort_by_key(|(_, histogram)| histogram.ts_ms));
        Ok(())
    }

    /// Reads the rows of files that may overlap a time range.
    async fn read_time_range(
        &self,
        schema: &'static TableSchema,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RecordBatch>, Error> {
        let Some(table) = self.table(schema.name) else { return Ok(Vec::new()) };
        let mut table = table.lock().await;
        let mut files = table.files().await?;
        // `ts` of a span is its start, but spans are partitioned by their end.
        let days = |at: Timestamp| day_of(at.millis());
        files.retain(|file| {
            let (first_ms, last_ms) = file.span_ms;
            let outside = first_ms >= to.millis() || (last_ms < from.millis() && schema.name != SPANS.name);
            file.tenant == *tenant && (days(from)..=days(to)).contains(&file.day) && !outside
        });
        files.sort_unstable_by_key(|file| file.offset);
        let mut batches = Vec::new();
        for file in &files {
            batches.extend(read_rows(table.open_file(file).await?, schema, (from, to), None)?);
        }
        Ok(batches)
    }
}

/// Returns whether a row is a deployment that a sender reported: a replay infers the others again.
fn is_reported_deployment(rows: &TableBatch<'_>, row: usize) -> Result<bool, Error> {
    let is_former = rows.schema.name == DEPLOYMENTS.name;
    Ok(is_former
        || rows.text("kind", row)? == EventKind::Deployment.as_str() && rows.text("source", row)? == Event::REPORTED)
}
