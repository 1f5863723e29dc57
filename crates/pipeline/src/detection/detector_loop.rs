//! The detection role: evaluates every batch in bus order and sends the results to the response.
//!
//! Batches that intake decoded come through the queue; missing ones (after a restart, a full queue or an aborted
//! request) are read from the bus. Either way each offset is processed once and in order, so that a replay gives the
//! same results. The state is checkpointed at an interval (`state/checkpoint.rs`), after which the bus may drop older
//! records.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wardroom_bus::{Bus, DeadLetterReason, DeadLetters, Record};
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, TenantId};
use wardroom_edge::InflateBudget;
use wardroom_process::clock;

use super::bus_records::{decode_record, first_offset_since};
use super::detector_output::{DetectorOutput, ReceiverClosed};
use super::evaluate::evaluate;
use crate::config::Config;
use crate::intake::batch_queue::BatchQueue;
use crate::lake::lake_state::LakeTables;
use crate::lake::lake_writer::LakeWriter;
use crate::lake::rebuild_batch::BatchRebuilder;
use crate::state::checkpoint::{Checkpoints, ResumePoint};
use crate::state::tenants::{SELF_TENANT, Tenants};
use crate::{metrics as names, poison_records};

/// Age of the oldest record that is read from the bus at a start without a checkpoint.
const REPLAY_WINDOW: Duration = Duration::from_secs(45 * 60);
/// Lag up to which a batch may still be on its way to the queue. Beyond it a batch that is not queued is read from the
/// bus.
const MAX_QUEUE_LAG_RECORDS: u64 = 1024;
/// Maximum wait for a queued batch while there is a lag.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(20);
/// Maximum wait for the next batch without a lag; also the interval of checks for a due flush and for records that were
/// appended to the bus without being queued (replayed dead letters).
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);
/// The same while a flush to the lake is in progress.
const FLUSHING_TIMEOUT: Duration = Duration::from_millis(100);
/// Records read from the bus at once.
const READ_RECORDS: u64 = 256;
/// Delay before a failed read of the bus is retried.
const READ_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Delay before decoding is retried when the inflate budget is exhausted.
const BUDGET_RETRY_DELAY: Duration = Duration::from_millis(20);

/// The detection role. Runs on its own thread.
pub struct DetectorLoop {
    /// Configuration.
    pub config: Config,
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// State of all tenants.
    pub tenants: Arc<Tenants>,
    /// Batches decoded by intake.
    pub queue: Arc<BatchQueue>,
    /// Memory budget of decompression.
    pub budget: InflateBudget,
    /// Where results are sent.
    pub output: DetectorOutput,
    /// The next offset: everything below has been evaluated.
    pub next: Arc<AtomicU64>,
    /// Store of dead letters.
    pub dead_letters: Arc<DeadLetters>,
    /// Offsets that were dead-lettered before the start.
    pub dead_lettered: BTreeSet<u64>,
    /// Runtime for async calls.
    pub runtime: tokio::runtime::Handle,
    /// Where state is checkpointed.
    pub checkpoints: Checkpoints,
    /// The checkpoint that was loaded, if any.
    pub resumed: Option<ResumePoint>,
    /// The tables, if samples are written to the lake.
    pub lake: Option<LakeTables>,
}

impl DetectorLoop {
    /// Runs until the receiver of the output is dropped.
    pub fn run(mut self) {
        let mut next = self.start_offset();
        let mut lake_writer = self.lake_writer(next);
        let mut checkpointed_at = Instant::now();
        loop {
            self.next.store(next, Ordering::Release);
            if self.output.flush_due() && self.output.flush().is_err() {
                return;
            }
            let lag = self.bus.end_offset().saturating_sub(next);
            if let Some(lake_writer) = &mut lake_writer {
                lake_writer.poll(next, &self.tenants, &mut self.checkpoints);
            }
            let busy = lake_writer.as_ref().is_some_and(LakeWriter::is_busy);
            if !busy && checkpointed_at.elapsed() >= Duration::from_secs(self.config.checkpoint.interval_seconds) {
                self.checkpoint(next, lake_writer.as_ref().and_then(LakeWriter::committed_offset));
                checkpointed_at = Instant::now();
            }
            let timeout = match lag {
                0 if busy => FLUSHING_TIMEOUT,
                0 => IDLE_TIMEOUT,
                1..=MAX_QUEUE_LAG_RECORDS => QUEUE_TIMEOUT,
                _ => Duration::ZERO,
            };
            let queued = self.queue.take(next, timeout);
            // If series were renumbered since it was decoded, the batch is decoded again from the bus.
            let queued = queued.filter(|(tenant, batch)| self.tenants.ids_are_current(tenant, batch));
            if let Some((tenant, batch)) = queued {
                if self.process(next, &tenant, &batch).is_err() {
                    return;
                }
                lake_writer.iter_mut().for_each(|writer| writer.add_samples(batch.metrics.samples.len()));
                next += 1;
                self.flush_blocks(&tenant);
            } else if self.bus.end_offset() > next {
                let (mut samples, stop) = (0, lake_writer.as_ref().and_then(LakeWriter::already_committed_to));
                match self.read_from_bus(next, stop, &mut samples) {
                    Ok(Some(processed_to)) => {
                        lake_writer.iter_mut().for_each(|writer| writer.add_samples(samples));
                        next = processed_to;
                        self.tenants.all().iter().for_each(|(tenant, _)| self.flush_blocks(tenant));
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "reading the bus failed; retrying");
                        std::thread::sleep(READ_RETRY_DELAY);
                    }
                }
            }
            if self.output.is_closed() {
                return;
            }
        }
    }

    /// Writes a checkpoint. If that fails, the next start reads more of the bus. All output so far is stored first,
    /// since a restart from the checkpoint does not send it again.
    fn checkpoint(&mut self, next: u64, lake_offset: Option<u64>) {
        if self.output.flush_and_wait().is_err() {
            return;
        }
        self.report_sizes();
        let (started, complete_from_ms) = (Instant::now(), self.tenants.complete_from_ms.load(Ordering::Acquire));
        if let Err(error) = self.checkpoints.evict_inactive_series(&self.config, &self.tenants) {
            tracing::error!(%error, "evicting inactive series failed");
        }
        match self.checkpoints.write(next, complete_from_ms, lake_offset, self.bus.as_ref(), &self.tenants) {
            Ok(size) => {
                metrics::counter!(names::CHECKPOINTS_TOTAL).increment(1);
                metrics::gauge!(names::CHECKPOINT_SECONDS).set(started.elapsed().as_secs_f64());
                metrics::gauge!(names::CHECKPOINT_BYTES).set(size as f64);
            }
            Err(error) => tracing::error!(%error, "writing a checkpoint failed; a restart would read more of the bus"),
        }
    }

    fn report_sizes(&self) {
        let sizes = self.tenants.all().into_iter().map(|(_, tenant)| tenant.detectors().engine.size());
        let (signals, entities) =
            sizes.fold((0, 0), |(signals, entities), size| (signals + size.signals, entities + size.entities));
        metrics::gauge!(names::DETECT_SIGNALS).set(signals as f64);
        metrics::gauge!(names::DETECT_ENTITIES).set(entities as f64);
    }

    fn flush_blocks(&mut self, tenant: &TenantId) {
        let state = self.tenants.get(tenant);
        if let Err(error) = self.checkpoints.flush_blocks_if_large(tenant, &mut state.live_state()) {
            tracing::error!(%error, "writing sealed blocks failed; they stay in memory");
        }
    }

    /// Returns the offset to start from: that of the checkpoint, or of the first record within [`REPLAY_WINDOW`].
    fn start_offset(&self) -> u64 {
        if let Some(ResumePoint { offset, complete_from_ms, .. }) = self.resumed {
            // Journals drop blocks that are older than the live window; those samples are read from the tables or the
            // bus.
            let live_window = Duration::from_secs(u64::from(self.config.head.recent_minutes) * 60);
            let complete_from_ms = complete_from_ms.max(clock::now().minus(live_window).millis());
            self.tenants.complete_from_ms.store(complete_from_ms, Ordering::Release);
            return offset;
        }
        let read = |offset| self.bus.read(offset, 1).ok().and_then(|records| records.into_iter().next());
        let bus_range = (self.bus.start_offset(), self.bus.end_offset());
        let mut first = first_offset_since(read, bus_range, clock::now().minus(REPLAY_WINDOW));
        if let Some(committed) = self.lake.as_ref().and_then(|tables| tables.committed_offset) {
            // Records that are not in the tables yet have to be read, however old they are.
            first = first.min(committed.max(self.bus.start_offset()));
        }
        // Records before the first one may hold samples whose timestamps are ahead of their arrival.
        let max_ahead = Duration::from_secs(self.config.sources.max_ahead_minutes * 60);
        let received_at = self.bus.read(first, 1).ok().and_then(|records| Some(records.first()?.envelope.received_at));
        let complete_from_ms = received_at.unwrap_or_else(clock::now).plus(max_ahead).millis();
        let complete_from_ms = if first == 0 { i64::MIN } else { complete_from_ms };
        self.tenants.complete_from_ms.store(complete_from_ms, Ordering::Release);
        first
    }

    fn lake_writer(&self, next: u64) -> Option<LakeWriter> {
        let (tables, config) = (self.lake.clone()?, self.config.lake.clone());
        let rebuilder = BatchRebuilder {
            bus: Arc::clone(&self.bus),
            tenants: Arc::clone(&self.tenants),
            budget: self.budget.clone(),
            dead_letters: Arc::clone(&self.dead_letters),
            runtime: self.runtime.clone(),
        };
        Some(LakeWriter::new(tables, config, rebuilder, self.resumed, next))
    }

    /// Reads and processes records that are not queued, up to the first queued one or `stop`. Adds their samples to
    /// `samples` and returns the next offset; `None` if the receiver of the output was dropped.
    fn read_from_bus(
        &mut self,
        next: u64,
        stop: Option<u64>,
        samples: &mut usize,
    ) -> Result<Option<u64>, wardroom_bus::Error> {
        let stop = self.queue.first_offset().into_iter().chain(stop).filter(|stop| *stop > next).min();
        let limit = stop.map_or(READ_RECORDS, |stop| (stop - next).min(READ_RECORDS));
        let end = self.bus.end_offset();
        let mut records = self.bus.read(next, limit as usize)?;
        // Offsets may be missing (damaged records, a new epoch): as many records as offsets can reach beyond `stop`.
        let is_before_stop = |record: &Record| stop.is_none_or(|stop| record.offset < stop);
        let processed_to = match records.last() {
            Some(last) if is_before_stop(last) => last.offset + 1,
            Some(_) => stop.unwrap_or(end),
            // Everything up to the former end is damaged and skipped.
            None => stop.map_or(end, |stop| stop.min(end)),
        };
        records.retain(is_before_stop);
        for record in records {
            if self.dead_lettered.contains(&record.offset) {
                continue;
            }
            match self.decode(&record) {
                Ok(batch) => {
                    if self.process(record.offset, &record.envelope.tenant, &batch).is_err() {
                        return Ok(None);
                    }
                    *samples += batch.metrics.samples.len();
                }
                Err(detail) => {
                    let reason = poison_records::undecodable(record.offset, detail, clock::now());
                    self.dead_letter(&reason, &record);
                }
            }
        }
        Ok(Some(processed_to))
    }

    /// Decodes a record; waits while requests of intake use up the inflate budget.
    fn decode(&self, record: &Record) -> Result<Batch, String> {
        loop {
            match decode_record(&self.tenants, &self.budget, record) {
                Err(Failure::Retryable(_)) if !self.output.is_closed() => std::thread::sleep(BUDGET_RETRY_DELAY),
                done => return done.map_err(|error| error.to_string()),
            }
        }
    }

    /// Evaluates a batch and sends the results. A record on which a detector panics is retried, then dead-lettered.
    fn process(&mut self, offset: u64, tenant: &TenantId, batch: &Batch) -> Result<(), ReceiverClosed> {
        if tenant.as_str() == SELF_TENANT {
            let newest = batch.metrics.samples.iter().map(|sample| sample.ts_ms).max().unwrap_or_default();
            self.tenants.last_probe_ms.fetch_max(newest.max(0) as u64, Ordering::AcqRel);
        }
        let state = self.tenants.get(tenant);
        let evaluated = poison_records::retry_record(offset, || {
            let evaluated = std::panic::catch_unwind(AssertUnwindSafe(|| evaluate(&self.config, &state, batch)));
            evaluated.map_err(|panic| {
                metrics::counter!(names::DETECT_PANICS_TOTAL).increment(1);
                poison_records::panic_message(&*panic)
            })
        });
        let (anomalies, decisions) = match evaluated {
            Ok(found) => found,
            Err(reason) => {
                self.dead_letter_offset(offset, &reason);
                return Ok(());
            }
        };
        self.output.add_anomalies(tenant, anomalies);
        decisions.into_iter().try_for_each(|decision| self.output.send_decision(tenant, decision))
    }

    /// Reads the record of an offset from the bus and dead-letters it.
    fn dead_letter_offset(&self, offset: u64, reason: &DeadLetterReason) {
        loop {
            match self.bus.read(offset, 1).map(|records| records.into_iter().find(|record| record.offset == offset)) {
                Ok(Some(record)) => return self.dead_letter(reason, &record),
                Ok(None) => return tracing::error!(offset, "a poison record is not on the bus; no dead letter stored"),
                Err(error) => tracing::error!(%error, offset, "reading a poison record failed; retrying"),
            }
            if self.output.is_closed() {
                return;
            }
            std::thread::sleep(READ_RETRY_DELAY);
        }
    }

    fn dead_letter(&self, reason: &DeadLetterReason, record: &Record) {
        poison_records::dead_letter(&self.dead_letters, &self.runtime, reason, record, || self.output.is_closed());
    }
}
