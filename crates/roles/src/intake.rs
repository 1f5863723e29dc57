//! The intake role: series limit, bus, and the queue to detection.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wardroom_bus::{Bus, Error as BusError, mutant};
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Buckets, TenantId};
use wardroom_edge::InflateBudget;
use wardroom_sources::{Accepted, ByteQuota, Intake};

use crate::clock;
use crate::config::Config;
use crate::detect::Tenants;

/// Memory of the batches that wait for detection, in bytes, about; what is more is read from the bus again.
const WAITING: usize = 12 << 20;

/// Decoded batches on their way to detection, by offset.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: BTreeMap<u64, (TenantId, Batch)>,
    bytes: usize,
    /// Detection sleeps: each waking is a system call.
    asleep: bool,
}

impl Queue {
    fn put(&self, offset: u64, tenant: TenantId, batch: Batch) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes < WAITING {
            waiting.bytes += weight(&batch);
            waiting.batches.insert(offset, (tenant, batch));
        }
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.arrived.notify_one();
        }
    }

    /// The batch of exactly this offset, waiting for it a little.
    pub(crate) fn take(&self, offset: u64, patience: Duration) -> Option<(TenantId, Batch)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = waiting.take(offset) {
            return Some(found);
        }
        waiting.asleep = true;
        let (mut waiting, _) = self.arrived.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner);
        waiting.asleep = false;
        waiting.take(offset)
    }

    /// The first offset that waits here: what comes before it must be read from the bus.
    pub(crate) fn first(&self) -> Option<u64> {
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
pub(crate) fn intake(
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
