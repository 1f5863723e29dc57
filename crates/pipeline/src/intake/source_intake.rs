//! The intake role: checks series limits, appends requests to the bus and queues their decoded batches for detection.

use std::sync::Arc;

use wardroom_bus::{Bus, Error as BusError};
use wardroom_domain::error::Failure;
use wardroom_domain::mutant;
use wardroom_edge::{BodyBudget, InflateBudget};
use wardroom_process::clock;
use wardroom_sources::{AcceptedRequest, ByteRateLimiter, Intake};

use super::batch_queue::BatchQueue;
use crate::config::Config;
use crate::state::tenants::Tenants;

/// Builds the closures that the sources need: series resolution, append and clock.
pub fn source_intake(
    config: &Config,
    bus: Arc<dyn Bus>,
    tenants: Arc<Tenants>,
    queue: Arc<BatchQueue>,
    budget: InflateBudget,
) -> Intake {
    Intake {
        config: config.sources.clone(),
        edge: config.edge.clone(),
        budget,
        bodies: BodyBudget::new(config.edge.body_budget_bytes),
        rate_limiter: Arc::new(ByteRateLimiter::new(config.sources.tenant_bytes_per_second)),
        admit: {
            let tenants = Arc::clone(&tenants);
            Arc::new(move |tenant, events| tenants.admit(tenant, events))
        },
        resolve: Arc::new(move |tenant, keys, labels| tenants.resolve(tenant, keys, labels, true)),
        append: Arc::new(move |accepted: AcceptedRequest| {
            let (bus, queue) = (Arc::clone(&bus), Arc::clone(&queue));
            Box::pin(async move {
                if mutant::is_enabled("accept-and-drop") {
                    return Ok(0);
                }
                let tenant = accepted.envelope.tenant.clone();
                let offset = bus.append(accepted.envelope, accepted.body).await.map_err(append_failure)?;
                queue.push(offset, tenant, accepted.batch);
                Ok(offset)
            })
        }),
        now: Arc::new(clock::now),
    }
}

fn append_failure(error: BusError) -> Failure {
    match error {
        BusError::TooLarge { .. } => Failure::Rejected { reason: "too_large", detail: error.to_string() },
        BusError::Full { .. } => Failure::Quota(error.to_string()),
        BusError::Overloaded { .. } => Failure::Retryable(error.to_string()),
        BusError::Disk { .. } | BusError::Closed => Failure::Fatal(error.to_string()),
    }
}
