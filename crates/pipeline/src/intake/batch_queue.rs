//! Bounded queue of decoded batches between intake and detection.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wardroom_domain::{Batch, Buckets, TenantId};

/// Memory of the queued batches, in bytes (estimated). Beyond it batches are dropped, and detection reads them from the
/// bus.
const MAX_QUEUED_BYTES: usize = 12 << 20;

/// Decoded batches by bus offset.
#[derive(Debug, Default)]
pub struct BatchQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    batches: BTreeMap<u64, (TenantId, Batch)>,
    bytes: usize,
    /// Offset that detection waits for; it is woken for no other, since each wake-up is a system call.
    awaited: Option<u64>,
    /// A batch below this offset that is not queued was dropped or will never be queued.
    dropped_before: u64,
}

impl BatchQueue {
    /// Queues a batch, or drops it if the queue is full.
    pub(crate) fn push(&self, offset: u64, tenant: TenantId, batch: Batch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = state.bytes < MAX_QUEUED_BYTES;
        if fits {
            state.bytes += estimated_bytes(&batch);
            state.batches.insert(offset, (tenant, batch));
        } else {
            state.dropped_before = state.dropped_before.max(offset + 1);
        }
        let wake = state.awaited.is_some_and(|awaited| awaited == offset || !fits);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Removes and returns the batch of exactly this offset; waits up to `timeout` for it.
    ///
    /// Batches may be queued out of order. Waiting for the exact offset avoids a read from the bus for a batch that
    /// is queued a moment later.
    pub fn take(&self, offset: u64, timeout: Duration) -> Option<(TenantId, Batch)> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found = state.take(offset);
            let remaining = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || remaining.is_zero() || offset < state.dropped_before {
                state.awaited = None;
                return found;
            }
            state.awaited = Some(offset);
            (state, _) = self.arrived.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the lowest queued offset: everything below it has to be read from the bus.
    pub fn first_offset(&self) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.batches.first_key_value().map(|(offset, _)| *offset)
    }
}

impl QueueState {
    fn take(&mut self, offset: u64) -> Option<(TenantId, Batch)> {
        // Lower offsets were read from the bus meanwhile.
        while let Some(first) = self.batches.first_entry().filter(|first| *first.key() < offset) {
            self.bytes -= estimated_bytes(&first.remove().1);
        }
        let found = self.batches.remove(&offset)?;
        self.bytes -= estimated_bytes(&found.1);
        Some(found)
    }
}

/// Estimates the memory of a batch, in bytes.
fn estimated_bytes(batch: &Batch) -> usize {
    let logs: usize = batch.logs.iter().map(|log| log.message.len() + log.labels.as_bytes().len() + 200).sum();
    let spans: usize = batch.spans.iter().map(|span| span.name.len() + span.labels.as_bytes().len() + 200).sum();
    let buckets = |side: &Buckets| side.counts.len() * 8 + side.spans.len() * 8;
    let histograms = batch.metrics.histograms.iter();
    let histograms: usize =
        histograms.map(|(_, histogram)| 200 + buckets(&histogram.positive) + buckets(&histogram.negative)).sum();
    let metrics = batch.metrics.runs.len() * 8 + batch.metrics.samples.len() * 16 + histograms;
    200 + metrics + batch.metrics.exemplars.len() * 200 + logs + spans + batch.deployments.len() * 400
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wardroom_domain::LogEntry;

    use super::*;

    fn batch(bytes: usize) -> Batch {
        let message = "x".repeat(bytes);
        let (severity, labels) = (wardroom_domain::Severity::Info, wardroom_domain::Labels::default());
        let at = wardroom_domain::Timestamp::from_millis(0);
        Batch { logs: vec![LogEntry { at, severity, message, service: String::new(), labels }], ..Batch::default() }
    }

    #[test]
    fn waits_for_a_batch_that_is_queued_out_of_order() {
        let queue = Arc::new(BatchQueue::default());
        queue.push(1, TenantId::main(), batch(1));
        let late = Arc::clone(&queue);
        let push_thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            late.push(2, TenantId::main(), batch(1));
            late.push(0, TenantId::main(), batch(1));
        });
        let started = Instant::now();
        for offset in 0..3 {
            assert!(queue.take(offset, Duration::from_secs(10)).is_some(), "{offset}");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        push_thread.join().unwrap();
        assert!(queue.take(3, Duration::from_millis(5)).is_none());
    }

    #[test]
    fn does_not_wait_for_a_batch_dropped_by_a_full_queue() {
        let queue = BatchQueue::default();
        queue.push(0, TenantId::main(), batch(MAX_QUEUED_BYTES));
        queue.push(1, TenantId::main(), batch(1));
        assert!(queue.take(0, Duration::ZERO).is_some());
        let started = Instant::now();
        assert!(queue.take(1, Duration::from_secs(10)).is_none(), "has to be read from the bus");
        assert!(started.elapsed() < Duration::from_secs(5));
        queue.push(2, TenantId::main(), batch(1));
        assert!(queue.take(2, Duration::from_secs(10)).is_some());
    }
}
