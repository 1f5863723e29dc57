//! The lake writer: flushes samples that detection has processed to the tables, batch by batch.
//!
//! ```text
//! detector loop, between two records ── batch up to offset X ──► files ──► commit txn(X) ──► sync ──► bus commit X
//! ```
//!
//! A batch is everything between two offsets of the bus. One flush is in progress at a time, and no checkpoint is taken
//! meanwhile, so a checkpoint never claims that the lake has samples it lacks. After a restart the committed offset is
//! read from the tables. If it is beyond that of the checkpoint, samples that are read again up to it are discarded
//! there; either way each sample is written once. A batch that cannot be encoded is rebuilt from the bus
//! ([`BatchRebuilder`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wardroom_domain::{Sample, TenantId, Timestamp};
use wardroom_files::BlockReader;
use wardroom_head::KeyedFlushBatch;
use wardroom_lake::{CommitOutcome, Error, Flush, Lake, NewSeries};
use wardroom_process::{clock, heap};

use super::lake_state::{LakeTables, MAX_RETRY_DELAY};
use super::rebuild_batch::BatchRebuilder;
use crate::poison_injection::panic_on_poison_sample;
use crate::poison_records::MAX_ATTEMPTS;
use crate::state::checkpoint::{Checkpoints, ResumePoint};
use crate::state::tenants::{LiveState, SELF_TENANT, Tenant, Tenants};
use crate::{consumer_groups, metrics as names};

/// Late samples of a tenant in memory that cause a flush.
const MAX_LATE_SAMPLES: usize = 200_000;
/// Delay before the first retry of a flush; it doubles up to [`MAX_RETRY_DELAY`].
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Writes the samples of the live series to the lake.
pub struct LakeWriter {
    tables: LakeTables,
    config: wardroom_lake::Config,
    rebuilder: BatchRebuilder,
    /// Samples of records before this offset are in the tables already, and are discarded once detection reaches it.
    already_committed_to: Option<u64>,
    /// The flush in progress: its end offset, when its batch was taken, and the signal that it is committed.
    in_progress: Option<(u64, Timestamp, oneshot::Receiver<()>)>,
    /// Start of the current flush interval.
    interval_start: Instant,
    /// Full seconds of the interval at the last check of time and late samples.
    checked_at_seconds: u64,
    /// Samples processed since the last flush.
    samples: u64,
    /// Samples that cause a flush.
    flush_threshold_samples: u64,
}

impl LakeWriter {
    /// Creates a writer that continues at the committed offset of the tables. Detection starts at `next`, from the
    /// checkpoint `resumed`.
    pub fn new(
        tables: LakeTables,
        config: wardroom_lake::Config,
        rebuilder: BatchRebuilder,
        resumed: Option<ResumePoint>,
        next: u64,
    ) -> Self {
        let committed_offset = tables.committed_offset.unwrap_or_else(|| rebuilder.bus.start_offset().min(next));
        tables.samples_progress.set_committed_offset(committed_offset);
        let checkpoint = resumed.map(|resumed| resumed.lake_offset);
        Self {
            already_committed_to: already_committed_to(tables.committed_offset, checkpoint, next),
            in_progress: None,
            interval_start: Instant::now(),
            checked_at_seconds: 0,
            samples: 0,
            // The first samples are flushed at once, so that a new installation shows them.
            flush_threshold_samples: config.flush_steps.into(),
            tables,
            config,
            rebuilder,
        }
    }

    /// Returns the committed offset of the tables, for a checkpoint.
    pub const fn committed_offset(&self) -> Option<u64> {
        self.tables.committed_offset
    }

    /// Returns the offset before which the tables have samples that are read from the bus again, until it is reached.
    pub const fn already_committed_to(&self) -> Option<u64> {
        self.already_committed_to
    }

    /// Returns whether no checkpoint may be taken: a flush is in progress, or samples are read that are committed
    /// already.
    pub const fn is_busy(&self) -> bool {
        self.in_progress.is_some() || self.already_committed_to.is_some()
    }

    /// Counts samples that went through detection.
    pub fn add_samples(&mut self, samples: usize) {
        self.samples += samples as u64;
    }

    /// Checks the flush in progress and starts a due one. Called between two records; `next` is the next offset.
    pub fn poll(&mut self, next: u64, tenants: &Tenants, checkpoints: &mut Checkpoints) {
        if let Some(committed) = self.already_committed_to {
            if next < committed {
                return;
            }
            tenants.all().iter().for_each(|(_, tenant)| drop(tenant.live_state().recent.take_flush_batch()));
            self.already_committed_to = None;
            self.commit_to_bus(tenants);
            self.restart_interval();
        }
        if let Some((offset, taken_at, done)) = &mut self.in_progress {
            match done.try_recv() {
                Ok(()) => {
                    self.tables.committed_offset = Some(*offset);
                    self.tables.samples_progress.set_committed_offset(*offset);
                    self.tables.samples_progress.set_complete_to(*taken_at);
                    self.in_progress = None;
                    self.commit_to_bus(tenants);
                }
                // Still in progress, or the process is shutting down.
                Err(_) => return,
            }
        }
        if self.flush_due(next, tenants) {
            self.start_flush(next, tenants, checkpoints);
        }
    }

    fn flush_due(&mut self, next: u64, tenants: &Tenants) -> bool {
        if next <= self.tables.samples_progress.committed_offset() {
            self.restart_interval();
            return false;
        }
        if self.samples >= self.flush_threshold_samples {
            return true;
        }
        // Called for every record, so the locks below are taken once a second.
        let elapsed = self.interval_start.elapsed();
        if elapsed.as_secs() == self.checked_at_seconds {
            return false;
        }
        self.checked_at_seconds = elapsed.as_secs();
        let has_many_late = |tenant: &Tenant| tenant.live_state().recent.unflushed_late_samples() > MAX_LATE_SAMPLES;
        elapsed >= Duration::from_secs(self.config.flush_seconds)
            || tenants.all().iter().any(|(_, tenant)| has_many_late(tenant))
    }

    fn restart_interval(&mut self) {
        (self.samples, self.interval_start, self.checked_at_seconds) = (0, Instant::now(), 0);
    }

    /// Commits the offset on the bus, and lets the journals drop blocks that the lake has.
    fn commit_to_bus(&self, tenants: &Tenants) {
        for (_, tenant) in tenants.all() {
            let live = &mut *tenant.live_state();
            live.lake_committed_address = live.recent.flushed_position();
        }
        let offset = self.tables.samples_progress.committed_offset();
        if let Err(error) = self.rebuilder.bus.commit(consumer_groups::LAKE_SAMPLES, offset) {
            tracing::warn!(%error, "committing the lake's offset failed; the bus retains more than needed");
        }
    }

    /// Takes the batch that ends before `next` and flushes it in the background. A failed flush is retried until it
    /// succeeds: the bus retains the records, and intake returns 503 once the bus is full.
    fn start_flush(&mut self, next: u64, tenants: &Tenants, checkpoints: &mut Checkpoints) {
        let samples = std::mem::take(&mut self.samples);
        self.restart_interval();
        let tenants: Vec<_> = tenants.all().into_iter().filter(|(id, _)| id.as_str() != SELF_TENANT).collect();
        // The batch is read from sealed blocks on disk. All tenants' blocks are written before the first batch is
        // taken: a batch that is taken and not flushed would be lost.
        for (id, tenant) in &tenants {
            let live = &mut *tenant.live_state();
            live.recent.seal_all();
            if let Err(error) = checkpoints.flush_blocks(id, live) {
                tracing::error!(%error, samples, "lake flush postponed: writing sealed blocks failed");
                return;
            }
        }
        // What arrived before is in the batch, except for what detection has not processed yet (its lag).
        let taken_at = clock::now();
        let (mut parts, mut new_series) = (Vec::new(), Vec::new());
        for (id, tenant) in &tenants {
            parts.push(take_tenant_batch(id, tenant, &mut new_series));
        }
        let series: u64 = parts.iter().map(|part| part.series as u64).sum();
        self.flush_threshold_samples = (series * u64::from(self.config.flush_steps)).max(self.config.flush_samples);
        let (done, committed) = oneshot::channel();
        self.in_progress = Some((next, taken_at, committed));
        let (lake, progress) = (Arc::clone(&self.tables.lake), Arc::clone(&self.tables.samples_progress));
        let (rebuilder, from) = (self.rebuilder.clone(), progress.committed_offset());
        self.rebuilder.runtime.spawn(async move {
            let (batch, started) = (Arc::new(LakeBatch { offset: next, parts, new_series }), Instant::now());
            let (mut delay, mut encode_failures) = (INITIAL_RETRY_DELAY, 0);
            loop {
                let rebuild = (encode_failures >= MAX_ATTEMPTS).then(|| (rebuilder.clone(), from));
                // In a separate task, so that a panic counts as a failed attempt.
                let attempt = tokio::spawn(write_batch(Arc::clone(&lake), Arc::clone(&batch), rebuild)).await;
                let panicked = |panic: tokio::task::JoinError| Error::Unavailable(panic.to_string());
                let error = match attempt.unwrap_or_else(|panic| Err(WriteError::Store(panicked(panic)))) {
                    Ok(written) => break metrics::counter!(names::LAKE_SAMPLES_TOTAL).increment(written),
                    Err(WriteError::Store(error)) => error,
                    Err(WriteError::Encode(error)) => {
                        encode_failures += 1;
                        error
                    }
                };
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(offset = next, %error, "lake flush failed; retrying");
                progress.set_last_error(Some(error.to_string()));
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_RETRY_DELAY);
            }
            progress.set_last_error(None);
            // Return the memory of the batch to the system: the next flush is minutes away.
            drop(batch);
            let _panicked = tokio::task::spawn_blocking(heap::trim_heap).await;
            metrics::gauge!(names::LAKE_FLUSH_SECONDS).set(started.elapsed().as_secs_f64());
            // The receiver is dropped on shutdown.
            let _shutting_down = done.send(());
        });
    }
}

/// Returns the offset before which the tables hold samples that the live state does not know to be committed.
/// `checkpoint` is the committed offset that the checkpoint recorded (outer `None` without a checkpoint); the tables
/// may have advanced since, starting with the record at which it was taken.
fn already_committed_to(committed: Option<u64>, checkpoint: Option<Option<u64>>, next: u64) -> Option<u64> {
    let committed = committed?;
    let is_ahead = checkpoint.map_or(committed > next, |recorded| recorded.is_none_or(|recorded| committed > recorded));
    is_ahead.then_some(committed.max(next))
}

/// One tenant's part of a batch.
struct TenantBatch {
    tenant: TenantId,
    batch: KeyedFlushBatch,
    sealed: BlockReader,
    series: usize,
}

fn take_tenant_batch(id: &TenantId, tenant: &Tenant, new_series: &mut Vec<NewSeries>) -> TenantBatch {
    // Detection has seen all series of the batch, and knows what they are about.
    let detectors = tenant.detectors();
    let live = &mut *tenant.live_state();
    let batch = live.recent.take_flush_batch();
    let series = batch.series();
    let registry = tenant.registry();
    for series_id in &series {
        let Some(labels) = registry.labels(*series_id) else { continue };
        let (lake_id, is_new) = live.lake_series_ids.assign(*series_id, labels);
        if is_new {
            let first_ms = live.recent.span_ms(*series_id).map_or(0, |(first, _)| first);
            let entity = detectors.engine.entity_of_series(*series_id).cloned().unwrap_or_default();
            new_series.push(NewSeries { tenant: id.clone(), id: lake_id, labels: labels.clone(), entity, first_ms });
        }
    }
    let batch = batch.with_keys(|series| live.lake_series_ids.get(series));
    TenantBatch { tenant: id.clone(), batch, sealed: live.sealed.clone(), series: series.len() }
}

/// A batch to flush.
struct LakeBatch {
    /// End offset, exclusive.
    offset: u64,
    parts: Vec<TenantBatch>,
    new_series: Vec<NewSeries>,
}

impl LakeBatch {
    /// Encodes the batch as files; returns them with the number of samples.
    fn encode(&self) -> Result<(Flush, u64), Error> {
        let (mut flush, mut written) = (Flush::new(self.offset), 0);
        for part in &self.parts {
            let read_at = |address: u64, buffer: &mut [u8]| part.sealed.read(address, buffer);
            let push = |lake_id: i64, samples: &[Sample]| {
                panic_on_poison_sample(samples);
                written += samples.len() as u64;
                flush.push(&part.tenant, lake_id, samples)
            };
            let unreadable = || Error::Unavailable(format!("sealed samples of {} cannot be read", part.tenant));
            part.batch.for_each_series(&read_at, push).ok_or_else(unreadable)??;
        }
        flush.close()?;
        Ok((flush, written))
    }
}

/// Why a batch was not written.
enum WriteError {
    /// It cannot be encoded.
    Encode(Error),
    /// It cannot be stored or committed now.
    Store(Error),
}

/// Writes a batch; with `rebuild`, rebuilds it from the bus starting at that offset. Returns the number of samples
/// written, 0 if the batch was committed before.
async fn write_batch(
    lake: Arc<Lake>,
    batch: Arc<LakeBatch>,
    rebuild: Option<(BatchRebuilder, u64)>,
) -> Result<u64, WriteError> {
    let copy = Arc::clone(&batch);
    let encoding = tokio::task::spawn_blocking(move || {
        let mut new_series = copy.new_series.clone();
        let (flush, written) = match rebuild {
            Some((rebuilder, from)) => rebuilder.rebuild_batch(from, copy.offset, &mut new_series)?,
            None => copy.encode()?,
        };
        Ok::<_, Error>((flush, written, new_series))
    });
    let encoded = encoding.await.unwrap_or_else(|panic| Err(Error::Unavailable(panic.to_string())));
    let (flush, written, new_series) = encoded.map_err(WriteError::Encode)?;
    let outcome = lake.flush(flush, &new_series, clock::now()).await.map_err(WriteError::Store)?;
    Ok(if outcome == CommitOutcome::Committed { written } else { 0 })
}

/// Loads into the live state which ids the lake assigned to series after the checkpoint with committed offset `after`.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub async fn load_lake_series_ids(lake: &Lake, tenants: &Tenants, after: Option<u64>) -> Result<(), Error> {
    for (tenant, (highest, written)) in lake.known_series(after).await? {
        tenants.with(&tenant, |live: &mut LiveState| live.lake_series_ids.load_known(written, highest));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_committed_beyond_the_checkpoint_are_discarded() {
        for (committed, checkpoint, next, expected, why) in [
            (None, None, 5, None, "nothing was ever written"),
            (None, Some(None), 5, None, "nothing was written before the checkpoint either"),
            (Some(7), None, 3, Some(7), "read again from before the committed offset"),
            (Some(7), None, 7, None, "read from the committed offset"),
            (Some(7), Some(Some(7)), 9, None, "the live state holds what came since"),
            (Some(9), Some(Some(7)), 9, Some(9), "a batch was committed at the record of the checkpoint"),
            (Some(12), Some(Some(7)), 9, Some(12), "a batch was committed after the checkpoint"),
            (Some(9), Some(None), 9, Some(9), "the first batch"),
        ] {
            assert_eq!(already_committed_to(committed, checkpoint, next), expected, "{why}");
        }
    }
}
