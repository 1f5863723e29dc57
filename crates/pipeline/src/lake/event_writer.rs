//! The event writer: writes requests and their events (logs, spans, deployments, histograms, exemplars) from the bus to
//! the tables.
//!
//! ```text
//! bus ──► decode ──► deduplicate ──► rows ──► commit txn(X) to each table ──► sync ──► bus commit X
//! ```
//!
//! It reads the bus independently of detection. Each row has the offset of its request, so after a crash a table that
//! is ahead of others skips the rows it has. A request that a sender repeats within `DEDUP_WINDOW` is left out, as in
//! detection; the fingerprints of earlier requests are loaded from the tables.
//!
//! A poison record, of which no rows can be made, is retried and then dead-lettered. A failed attempt may leave partial
//! rows in memory, so everything not flushed yet is read from the bus again. If only the flush of many records fails,
//! they are read again and flushed one by one to find the poison record.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wardroom_bus::{Bus, DeadLetterReason, DeadLetters, Record, RecordLocation};
use wardroom_detect::{DedupCache, TemplateMiner};
use wardroom_domain::error::Failure;
use wardroom_domain::{Entity, Envelope, LogEntry, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_lake::{Error, EventBatch, Lake, LogLine, ReceivedRequest, RequestOrigin};
use wardroom_process::clock;
use wardroom_signals::Catalog;
use wardroom_sources::RequestEvents;

use super::lake_state::{LakeTables, MAX_RETRY_DELAY, WriteProgress};
use crate::config::Config;
use crate::poison_injection::panic_on_poison_row;
use crate::poison_records::{self, MAX_ATTEMPTS};
use crate::state::tenants::SELF_TENANT;
use crate::{consumer_groups, metrics as names};

/// Memory of buffered rows that causes a flush, in bytes.
const MAX_BUFFERED_BYTES: usize = 32 << 20;
/// Time within which a repeated request is recognised.
const DEDUP_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Interval at which buffered rows are published to queries.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Requests read at once; their bodies are held in memory meanwhile.
const READ_RECORDS: usize = 32;
/// Interval of polling the bus at its end. Each read opens a segment, and rows are published once a second anyway.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Unit of retry delays, and the longest time until a stop is noticed during a delay.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// State to start from: the next offset, fingerprints of earlier requests, and the empty batch.
type StartState = (u64, BTreeMap<TenantId, DedupCache>, EventBatch);

/// The event writer.
struct EventWriter {
    lake: Arc<Lake>,
    bus: Arc<dyn Bus>,
    budget: InflateBudget,
    sources: wardroom_sources::Config,
    catalog: Catalog,
    flush_interval: Duration,
    progress: Arc<WriteProgress>,
    dead_letters: Arc<DeadLetters>,
    runtime: tokio::runtime::Handle,
    stop: Arc<AtomicBool>,
}

/// Records of which no rows can be made.
#[derive(Default)]
struct PoisonRecords {
    /// Attempts by offset, with the time of the first.
    attempts: BTreeMap<u64, (u32, Timestamp)>,
    dead_lettered: BTreeSet<u64>,
    /// Records before this offset are flushed one by one.
    flush_singly_before: u64,
}

/// A record could not be turned into rows or flushed.
struct RecordFailure {
    offset: u64,
    /// Whether this record is at fault, or one of those before it.
    is_isolated: bool,
    error: String,
}

/// Stops the event writer when dropped.
pub struct EventWriterHandle(Arc<AtomicBool>);

impl Drop for EventWriterHandle {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Spawns the event writer on a blocking thread of `background`.
pub fn spawn_event_writer(
    tables: &LakeTables,
    config: &Config,
    bus: &Arc<dyn Bus>,
    budget: &InflateBudget,
    dead_letters: &Arc<DeadLetters>,
    background: &mut JoinSet<()>,
) -> EventWriterHandle {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = EventWriter {
        lake: Arc::clone(&tables.lake),
        bus: Arc::clone(bus),
        budget: budget.clone(),
        sources: config.sources.clone(),
        catalog: config.catalog.clone(),
        flush_interval: Duration::from_secs(config.lake.flush_seconds),
        progress: Arc::clone(&tables.events_progress),
        dead_letters: Arc::clone(dead_letters),
        runtime: tokio::runtime::Handle::current(),
        stop: Arc::clone(&stop),
    };
    background.spawn_blocking(move || writer.run());
    EventWriterHandle(stop)
}

impl EventWriter {
    /// Runs until it is stopped; rows that are not flushed by then are read from the bus after the restart.
    fn run(self) {
        let dead_lettered = self.dead_letters.offsets(consumer_groups::LAKE_EVENTS);
        let dead_lettered = dead_lettered
            .inspect_err(|error| tracing::error!(%error, "reading dead letters failed; retrying their records"));
        let mut poison = PoisonRecords { dead_lettered: dead_lettered.unwrap_or_default(), ..PoisonRecords::default() };
        while let Some(state) = self.retry_until_done("reading event tables failed; retrying", || self.load_state()) {
            if let Err(failure) = self.process(state, &poison) {
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(offset = failure.offset, error = failure.error, "writing rows of a record failed");
                self.handle_failure(&mut poison, failure);
            }
        }
    }

    /// Waits before the next attempt, or dead-letters the record after the last one.
    fn handle_failure(&self, poison: &mut PoisonRecords, failure: RecordFailure) {
        if !failure.is_isolated {
            poison.flush_singly_before = failure.offset + 1;
            return;
        }
        let (attempts, first_try) = poison.attempts.entry(failure.offset).or_insert((0, clock::now()));
        *attempts += 1;
        if *attempts < MAX_ATTEMPTS {
            return self.sleep(RETRY_DELAY / 2 * 2_u32.pow(*attempts - 1));
        }
        let reason = DeadLetterReason {
            group: consumer_groups::LAKE_EVENTS.to_owned(),
            offset: failure.offset,
            reason: failure.error,
            tries: *attempts,
            first_try: *first_try,
            last_try: clock::now(),
        };
        let found = self.bus.read(failure.offset, 1).map(|found| found.into_iter().next());
        match found {
            Ok(Some(record)) if record.offset == failure.offset => {
                let cancelled = || self.is_stopped();
                poison_records::dead_letter(&self.dead_letters, &self.runtime, &reason, &record, cancelled);
            }
            other => {
                let readable = other.is_ok();
                tracing::error!(offset = failure.offset, readable, "a poison record is not on the bus; skipping it");
            }
        }
        poison.dead_lettered.insert(failure.offset);
    }

    /// Reads the bus and writes rows until it is stopped.
    fn process(
        &self,
        (mut next, mut dedup, mut events): StartState,
        poison: &PoisonRecords,
    ) -> Result<(), RecordFailure> {
        let mut miners = BTreeMap::new();
        let not_isolated =
            |offset: u64| move |error: Error| RecordFailure { offset, is_isolated: false, error: error.to_string() };
        let (mut flushed_at, mut published_at) = (Instant::now(), Instant::now());
        let (mut has_new_rows, mut flushed_to) = (true, next);
        // Requests with samples only need no body here, unless some of their records were refused.
        let skip_body = |envelope: &Envelope| !envelope.has_events && envelope.refused.is_empty();
        while !self.is_stopped() {
            if events.is_empty() {
                self.progress.set_committed_offset(next);
            }
            if events.memory_bytes() >= MAX_BUFFERED_BYTES || flushed_at.elapsed() >= self.flush_interval {
                if next > flushed_to && !self.flush(&mut events, next).map_err(not_isolated(next))? {
                    break;
                }
                (flushed_at, flushed_to) = (Instant::now(), next);
            }
            if has_new_rows && published_at.elapsed() >= PUBLISH_INTERVAL {
                let pending = events.pending_rows(next).map_err(not_isolated(next))?;
                self.runtime.block_on(self.lake.publish_pending(pending));
                (published_at, has_new_rows) = (Instant::now(), false);
            }
            let end = self.bus.end_offset();
            let records =
                if end > next { self.bus.read_skipping_bodies(next, READ_RECORDS, &skip_body) } else { Ok(Vec::new()) };
            let records = records.inspect_err(|error| tracing::error!(%error, "reading the bus failed; retrying"));
            if records.as_ref().map_or(true, Vec::is_empty) {
                // Without a record, everything up to the former end is damaged and skipped.
                next = if records.is_ok() { next.max(end) } else { next };
                std::thread::sleep(POLL_INTERVAL);
            }
            for record in records.into_iter().flatten() {
                next = record.offset + 1;
                let is_own = record.envelope.tenant.as_str() == SELF_TENANT;
                if is_own || poison.dead_lettered.contains(&record.offset) {
                    continue;
                }
                let isolated = |error| RecordFailure { offset: record.offset, is_isolated: true, error };
                let append = AssertUnwindSafe(|| self.append_rows(&record, (&mut dedup, &mut miners), &mut events));
                let appended = std::panic::catch_unwind(append)
                    .map_err(|panic| isolated(poison_records::panic_message(&*panic)))?;
                appended.map_err(|error| isolated(error.to_string()))?;
                has_new_rows = true;
                if record.offset < poison.flush_singly_before {
                    if !self.flush(&mut events, next).map_err(|error| isolated(error.to_string()))? {
                        return Ok(());
                    }
                    (flushed_at, flushed_to) = (Instant::now(), next);
                }
            }
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Loads the committed offset and the fingerprints of the requests in the tables.
    fn load_state(&self) -> Result<StartState, Error> {
        let committed = self.bus.committed(consumer_groups::LAKE_EVENTS);
        let committed = committed.map_err(|error| Error::Unavailable(error.to_string()))?;
        let since_us = clock::now().minus(DEDUP_WINDOW).nanos() / 1000;
        let table_offsets = self.runtime.block_on(self.lake.committed_event_offsets())?;
        let next = resume_offset(self.bus.as_ref(), table_offsets.iter(), committed.unwrap_or_default());
        let next = next.map_err(|error| Error::Unavailable(error.to_string()))?.max(self.bus.start_offset());
        let requests = self.runtime.block_on(self.lake.stored_requests(next, since_us))?;
        let mut dedup: BTreeMap<TenantId, DedupCache> = BTreeMap::new();
        for (tenant, requests) in requests {
            let cache = dedup.entry(tenant).or_default();
            requests.iter().for_each(|request| cache.insert(request.fingerprint, request.received_us / 1000));
        }
        Ok((next, dedup, EventBatch::new(table_offsets)))
    }

    /// Appends the rows of a record to the batch.
    fn append_rows(
        &self,
        record: &Record,
        (dedup, miners): (&mut BTreeMap<TenantId, DedupCache>, &mut BTreeMap<TenantId, TemplateMiner>),
        events: &mut EventBatch,
    ) -> Result<(), Error> {
        let envelope = &record.envelope;
        let RecordLocation { segment, position, bytes, sha256, size } = record.location;
        let received =
            ReceivedRequest { envelope, body: &record.body, size, sha256: &sha256, segment, position, bytes };
        let mut origin = RequestOrigin::new(envelope.tenant.clone(), record.offset, envelope.received_at, None);
        events.add_request(&origin, &received)?;
        if !envelope.has_events {
            return Ok(());
        }
        let RequestEvents { fingerprint, histograms, exemplars, batch } = loop {
            match wardroom_sources::replay(envelope, &record.body, &self.budget) {
                Ok(decoded) => break decoded.into_events(&record.body, &self.sources, envelope.received_at),
                Err(Failure::Retryable(_)) if !self.is_stopped() => std::thread::sleep(RETRY_DELAY),
                // Detection dead-letters the record.
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "decoding a record for the tables failed");
                    events.add_undecodable(&origin, &received, &error.to_string())?;
                    return Ok(());
                }
            }
        };
        panic_on_poison_row(&batch);
        let received_ms = envelope.received_at.millis();
        if let Some(fingerprint) = fingerprint {
            let cache = dedup.entry(envelope.tenant.clone()).or_default();
            if cache.contains(fingerprint, received_ms) {
                return Ok(());
            }
            cache.insert(fingerprint, received_ms);
        }
        origin.set_fingerprint(fingerprint);
        let miner = miners.entry(envelope.tenant.clone()).or_default();
        let entities = entities_of_logs(&self.catalog, &batch.logs);
        let lines = || entities.iter().flat_map(|(entity, logs)| logs.iter().map(move |log| (entity, log)));
        // From the whole request first: its first lines may show less than all of them.
        lines().for_each(|(entity, log)| miner.learn(&entity.name, &log.message));
        let (mut text, mut parameters) = (String::new(), Vec::new());
        for (seq, (entity, log)) in (0..).zip(lines()) {
            miner.template(&entity.name, &log.message, &mut text, &mut parameters);
            let line = LogLine { log, entity, template: &text, parameters: &parameters };
            events.add_log(&origin, seq, &line)?;
        }
        for (seq, span) in (0..).zip(&batch.spans) {
            let entity = self.catalog.entity_of_record(&span.labels).unwrap_or_default();
            events.add_span(&origin, seq, span, &entity)?;
        }
        for (seq, deployment) in (0..).zip(&batch.deployments) {
            events.add_deployment(&origin, seq, deployment)?;
        }
        for (seq, (labels, histogram)) in (0..).zip(&histograms) {
            events.add_histogram(&origin, seq, labels, histogram)?;
        }
        for (seq, (labels, exemplar)) in (0..).zip(&exemplars) {
            events.add_exemplar(&origin, seq, labels, exemplar)?;
        }
        Ok(())
    }

    /// Flushes the batch, which ends before `next`, and commits the offset on the bus. Returns false if it was stopped
    /// before.
    fn flush(&self, events: &mut EventBatch, next: u64) -> Result<bool, Error> {
        if !events.is_empty() {
            let files = events.finish(next, clock::now())?;
            let commit = || self.runtime.block_on(self.lake.commit_events(&files));
            if self.retry_until_done("event flush failed; retrying", commit).is_none() {
                return Ok(false);
            }
            for table in files.tables() {
                // Without it, the loss of the rows written now would go unnoticed, and nothing else.
                if let Err(error) = self.bus.commit(&consumer_groups::event_table_mark(table), next) {
                    tracing::warn!(table, %error, "noting the end of an event table failed");
                }
            }
            metrics::counter!(names::LAKE_EVENTS_TOTAL).increment(files.rows());
        }
        self.progress.set_committed_offset(next);
        if let Err(error) = self.bus.commit(consumer_groups::LAKE_EVENTS, next) {
            tracing::warn!(%error, "committing the event tables' offset failed; the bus retains more than needed");
        }
        Ok(true)
    }

    fn report_error(&self, message: &str, error: &Error) {
        metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
        tracing::error!(%error, "{message}");
        self.progress.set_last_error(Some(error.to_string()));
    }

    /// Sleeps; returns early if it is stopped.
    fn sleep(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until && !self.is_stopped() {
            std::thread::sleep(RETRY_DELAY);
        }
    }

    /// Retries `work` with backoff until it succeeds; returns `None` if it is stopped before.
    fn retry_until_done<T>(&self, message: &str, mut work: impl FnMut() -> Result<T, Error>) -> Option<T> {
        let mut delay = 2 * RETRY_DELAY;
        while !self.is_stopped() {
            match work() {
                Ok(done) => {
                    self.progress.set_last_error(None);
                    return Some(done);
                }
                Err(error) => self.report_error(message, &error),
            }
            self.sleep(delay);
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
        None
    }
}

/// Returns what wrote consecutive lines, with the lines: those of one stream or resource have the same labels.
fn entities_of_logs<'a>(catalog: &Catalog, logs: &'a [LogEntry]) -> Vec<(Entity, &'a [LogEntry])> {
    let groups = logs.chunk_by(|one, next| one.service == next.service && one.labels == next.labels);
    let entity = |group: &'a [LogEntry]| Some((catalog.entity_of_log(group.first()?), group));
    groups.filter_map(entity).collect()
}

/// Returns the offset from which the tables are written: `committed`, or where a table ends that was deleted or
/// replaced by an older copy, so that it gets the rows again that are still on the bus.
fn resume_offset(
    bus: &dyn Bus,
    table_offsets: impl Iterator<Item = (&'static str, u64)>,
    committed: u64,
) -> Result<u64, wardroom_bus::Error> {
    let mut next = committed;
    let mut ends = Vec::new();
    for (table, offset) in table_offsets {
        let mark = consumer_groups::event_table_mark(table);
        match bus.committed(&mark)? {
            Some(written) if written > offset => {
                let on_bus_from = bus.start_offset();
                tracing::error!(
                    table,
                    ends_at = offset,
                    written_to = written,
                    on_bus_from,
                    "a table has lost rows: it was deleted, or replaced by an older copy; those of requests that are \
                     still on the bus are written again"
                );
                next = next.min(offset);
            }
            // Of an earlier version, or damaged.
            None if offset > 0 => {}
            _ => continue,
        }
        ends.push((mark, offset));
    }
    // First: should the marks not be set, the same is found again.
    if next < committed {
        bus.commit(consumer_groups::LAKE_EVENTS, next)?;
    }
    ends.iter().try_for_each(|(mark, offset)| bus.commit(mark, *offset))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use wardroom_bus::EmbeddedBus;

    use super::*;

    /// Regression: the bus remembered that everything was written, so the rows of a table that was deleted, or replaced
    /// by an older copy, were missing although their requests were on the bus.
    #[test]
    fn a_table_that_lost_rows_is_written_again_from_where_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(dir.path(), wardroom_bus::Config::default()).unwrap();
        let resume = |logs, spans, committed| {
            let tables = [("silver.logs", logs), ("silver.spans", spans)];
            resume_offset(&bus, tables.into_iter(), committed).unwrap()
        };
        assert_eq!(resume(40, 0, 50), 50, "an earlier version has no marks, and spans have no rows yet");
        assert_eq!(resume(50, 20, 50), 50, "a table is behind if no rows came for it");
        assert_eq!(bus.committed(consumer_groups::LAKE_EVENTS).unwrap(), None, "is left to the flush");
        assert_eq!(resume(50, 10, 60), 10, "an older copy of one table");
        assert_eq!(bus.committed(consumer_groups::LAKE_EVENTS).unwrap(), Some(10), "the bus keeps these records");
        assert_eq!(resume(50, 10, 10), 10, "it is found once");
        assert_eq!(resume(50, 10, 60), 60);
        assert_eq!(resume(0, 0, 60), 0, "all tables were deleted");
    }
}
