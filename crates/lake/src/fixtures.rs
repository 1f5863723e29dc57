//! Test data shared by the unit tests.

use tokio::sync::Mutex;
use wardroom_domain::{Deployment, Entity, Labels, LogEntry, Sample, Severity, TenantId, Timestamp};

use crate::format::data_file::DataFile;
use crate::format::schema::TableSchema;
use crate::lake::Lake;
use crate::table::delta_table::Table;
use crate::write::event_batch::{CommittedOffsets, EventBatch, LogLine, RequestOrigin};
use crate::write::flush::{Flush, NewSeries};

/// Returns a table by its schema.
pub(crate) fn table_of<'a>(lake: &'a Lake, spec: &TableSchema) -> &'a Mutex<Table> {
    lake.table(spec.name).unwrap()
}

/// Returns samples at steps of 15 s.
pub(crate) fn sample_run(from_ms: i64, count: i64) -> Vec<Sample> {
    (0..count).map(|step| Sample { ts_ms: from_ms + step * 15_000, value: step as f64 / 10.0 }).collect()
}

/// Returns a flush of three series with ten samples each.
pub(crate) fn flush(offset: u64, from_ms: i64) -> Flush {
    let mut flush = Flush::new(offset);
    for series in 1..=3 {
        flush.push(&TenantId::main(), series, &sample_run(from_ms, 10)).unwrap();
    }
    flush
}

/// Returns a finished file that no commit names.
pub(crate) fn uncommitted_file(offset: u64, from_ms: i64) -> DataFile {
    let mut uncommitted = flush(offset, from_ms);
    uncommitted.close().unwrap();
    uncommitted.full.remove(0)
}

/// Returns a series for this id.
pub(crate) fn new_series(id: i64) -> NewSeries {
    let labels = Labels::of(&[("__name__", "up"), ("n", &id.to_string())]);
    NewSeries { tenant: TenantId::main(), id, labels, entity: Entity::service("web"), first_ms: 0 }
}

/// Number of rows of `silver.samples`.
pub(crate) async fn sample_row_count(lake: &Lake) -> usize {
    lake.sample_files().await.unwrap().iter().map(|file| file.rows as usize).sum()
}

/// Returns a log entry of the request at this offset.
pub(crate) fn log_entry(offset: u64, message: &str) -> (RequestOrigin, LogEntry) {
    let at = Timestamp::from_millis(1_795_255_038_000 + offset as i64);
    let log = LogEntry {
        at,
        severity: Severity::Warning,
        message: message.into(),
        service: "web".into(),
        labels: Labels::of(&[("region", "eu")]),
    };
    (RequestOrigin::new(TenantId::main(), offset, at, Some(u64::MAX - offset)), log)
}

/// Returns a batch with a log line and a deployment per offset.
pub(crate) fn event_batch(committed: CommittedOffsets, offsets: std::ops::Range<u64>) -> EventBatch {
    let mut events = EventBatch::new(committed);
    add_events(&mut events, offsets);
    events
}

/// Adds a log line and a deployment per offset.
pub(crate) fn add_events(events: &mut EventBatch, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let (from, log) = log_entry(offset, &format!("took {offset} ms"));
        let number = offset.to_string();
        let web = Entity::service("web");
        let line = LogLine { log: &log, entity: &web, template: "took <*> ms", parameters: &[&number] };
        events.add_log(&from, 0, &line).unwrap();
        let deployment = Deployment {
            at: log.at,
            service: "web".into(),
            version: number.clone(),
            status: "success".into(),
            metadata: Labels::default(),
        };
        events.add_deployment(&from, 0, &deployment).unwrap();
    }
}

/// Number of files and rows of a table.
pub(crate) async fn file_and_row_count(table: &Mutex<Table>) -> (usize, u64) {
    let files = table.lock().await.files().await.unwrap();
    (files.len(), files.iter().map(|file| file.rows).sum())
}
