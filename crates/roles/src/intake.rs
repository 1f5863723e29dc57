//! The intake role: series limit, bus, and the queue to detection.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wardroom_bus::{Bus, Error as BusError};
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, TenantId};
use wardroom_edge::InflateBudget;
use wardroom_sources::{Accepted, Intake};

use crate::clock;
use crate::config::Config;
use crate::detect::Tenants;

/// Batches that may wait for detection; what is more is read from the bus again.
const WAITING: usize = 4096;

/// Decoded batches on their way to detection, by offset.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<BTreeMap<u64, (TenantId, Batch)>>,
    arrived: Condvar,
}

impl Queue {
    fn put(&self, offset: u64, tenant: TenantId, batch: Batch) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.insert(offset, (tenant, batch));
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The batch of exactly this offset, waiting for it a little.
    pub(crate) fn take(&self, offset: u64, patience: Duration) -> Option<(TenantId, Batch)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // What was read from the bus meanwhile is not wanted again.
        *waiting = waiting.split_off(&offset);
        if let Some(found) = waiting.remove(&offset) {
            return Some(found);
        }
        let (mut waiting, _) = self.arrived.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&offset)
    }
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
        resolve: Arc::new(move |tenant, series| tenants.admit(tenant, &series.labels)),
        append: Arc::new(move |accepted: Accepted| {
            let (bus, queue) = (Arc::clone(&bus), Arc::clone(&queue));
            Box::pin(async move {
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
        BusError::Disk { .. } | BusError::Closed => Failure::Fatal(error.to_string()),
    }
}
