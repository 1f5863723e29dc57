//! The intake role: series limit, bus, and the queue to detection.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wardroom_bus::{Bus, Error as BusError};
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Buckets, TenantId, mutant};
use wardroom_edge::InflateBudget;
use wardroom_sources::{Accepted, ByteQuota, Intake};

use crate::config::Config;
use crate::tenants::Tenants;
use wardroom_process::clock;

/// Memory of the batches that wait for detection, in bytes, about; what is more is read from the bus again.
const WAITING: usize = 12 << 20;

/// Decoded batches on their way to detection, by offset.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: BTreeMap<u64, (TenantId, Batch)>,
    bytes: usize,
    /// What detection sleeps for: each waking is a system call.
    awaited: Option<u64>,
    /// Below it, what does not wait here never will.
    missed_to: u64,
}

impl Queue {
    fn put(&self, offset: u64, tenant: TenantId, batch: Batch) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = waiting.bytes < WAITING;
        if fits {
            waiting.bytes += weight(&batch);
            waiting.batches.insert(offset, (tenant, batch));
        } else {
            waiting.missed_to = waiting.missed_to.max(offset + 1);
        }
        let wake = waiting.awaited.is_some_and(|awaited| awaited == offset || !fits);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// The batch of exactly this offset, waiting for it a little. Acknowledgements overtake each other on their way
    /// here: whoever took the first arrival for a sign would read the bus for what comes a moment later.
    pub fn take(&self, offset: u64, patience: Duration) -> Option<(TenantId, Batch)> {
        let deadline = Instant::now() + patience;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found = waiting.take(offset);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() || offset < waiting.missed_to {
                waiting.awaited = None;
                return found;
            }
            waiting.awaited = Some(offset);
            (waiting, _) = self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first offset that waits here: what comes before it must be read from the bus.
    pub fn first(&self) -> Option<u64> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.batches.first_key_value().map(|(offset, _)| *offset)
    }
}

impl Waiting {
    fn take(&mut self, offset: u64) -> Option<(TenantId, Batch)> {
        // What was read from the bus meanwhile is not wanted again.
        while let Some(first) = self.batches.first_entry().filter(|first| *first.key() < offset) {
            self.bytes -= weight(&first.remove().1);
        }
        let found = self.batches.remove(&offset)?;
        self.bytes -= weight(&found.1);
        Some(found)
    }
}

/// What a batch holds in memory, in bytes, about.
fn weight(batch: &Batch) -> usize {
    let logs: usize = batch.logs.iter().map(|log| log.message.len() + log.labels.as_bytes().len() + 200).sum();
    let spans: usize = batch.spans.iter().map(|span| span.name.len() + span.labels.as_bytes().len() + 200).sum();
    let buckets = |side: &Buckets| side.counts.len() * 8 + side.spans.len() * 8;
    let histograms = batch.metrics.histograms.iter();
    let histograms: usize =
        histograms.map(|(_, histogram)| 200 + buckets(&histogram.positive) + buckets(&histogram.negative)).sum();
    let metrics = batch.metrics.runs.len() * 8 + batch.metrics.samples.len() * 16 + histograms;
    200 + metrics + batch.metrics.exemplars.len() * 200 + logs + spans + batch.deployments.len() * 400
}

/// What the sources need.
pub fn intake(
    config: &Config,
    bus: Arc<dyn Bus>,
    tenants: Arc<Tenants>,
    queue: Arc<Queue>,
    budget: InflateBudget,
) -> Intake {
    Intake {
        config: config.sources.clone(),
        edge: config.edge.clone(),
        budget,
        quota: Arc::new(ByteQuota::new(config.sources.tenant_bytes_per_second)),
        resolve: Arc::new(move |tenant, keys, labels| tenants.resolve(tenant, keys, labels, true)),
        append: Arc::new(move |accepted: Accepted| {
            let (bus, queue) = (Arc::clone(&bus), Arc::clone(&queue));
            Box::pin(async move {
                if mutant::on("accept-and-drop") {
                    return Ok(0);
                }
                let tenant = accepted.envelope.tenant.clone();
                let offset = bus.append(accepted.envelope, accepted.body).await.map_err(failure)?;
                queue.put(offset, tenant, accepted.batch);
                Ok(offset)
            })
        }),
        now: Arc::new(clock::now),
    }
}

fn failure(error: BusError) -> Failure {
    match error {
        BusError::TooLarge { .. } => Failure::Rejected { reason: "too_large", detail: error.to_string() },
        BusError::Full { .. } => Failure::Quota(error.to_string()),
        BusError::Overloaded { .. } => Failure::Retryable(error.to_string()),
        BusError::Disk { .. } | BusError::Closed => Failure::Fatal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::LogEntry;

    use super::*;

    fn batch(bytes: usize) -> Batch {
        let message = "x".repeat(bytes);
        let (severity, labels) = (wardroom_domain::Severity::Info, wardroom_domain::Labels::default());
        let at = wardroom_domain::Timestamp::from_millis(0);
        Batch { logs: vec![LogEntry { at, severity, message, service: String::new(), labels }], ..Batch::default() }
    }

    #[test]
    fn whoever_is_overtaken_is_waited_for() {
        let queue = Arc::new(Queue::default());
        queue.put(1, TenantId::main(), batch(1));
        let late = Arc::clone(&queue);
        let putting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            late.put(2, TenantId::main(), batch(1));
            late.put(0, TenantId::main(), batch(1));
        });
        let started = Instant::now();
        for offset in 0..3 {
            assert!(queue.take(offset, Duration::from_secs(10)).is_some(), "{offset}");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        putting.join().unwrap();
        assert!(queue.take(3, Duration::from_millis(5)).is_none());
    }

    #[test]
    fn nobody_waits_for_what_found_no_room() {
        let queue = Queue::default();
        queue.put(0, TenantId::main(), batch(WAITING));
        queue.put(1, TenantId::main(), batch(1));
        assert!(queue.take(0, Duration::ZERO).is_some());
        let started = Instant::now();
        assert!(queue.take(1, Duration::from_secs(10)).is_none(), "it is read from the bus");
        assert!(started.elapsed() < Duration::from_secs(5));
        queue.put(2, TenantId::main(), batch(1));
        assert!(queue.take(2, Duration::from_secs(10)).is_some());
    }
}
