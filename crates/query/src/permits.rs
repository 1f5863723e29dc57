//! A number of permits that tenants share fairly, for reads that run in the server's own process.
//!
//! Model: the schedule of the query workers, with permits in place of workers: a tenant with many reads waits behind
//! its own, and the next read of another one finds a permit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wardroom_domain::TenantId;

use crate::error::PoolError;
use crate::schedule::Schedule;

/// The permits.
#[derive(Clone)]
pub struct FairPermits(Arc<Inner>);

struct Inner {
    schedule: Mutex<Schedule<(), oneshot::Sender<Permit>>>,
    max_waiting: usize,
    timeout: Duration,
}

/// A permit, given back when it is dropped.
pub struct Permit {
    tenant: TenantId,
    /// Number in the schedule.
    number: u64,
    permits: Arc<Inner>,
}

impl FairPermits {
    /// Creates permits. At most `max_waiting` reads of a tenant wait for one, each for at most `timeout`.
    pub fn new(count: usize, max_waiting: usize, timeout: Duration) -> Self {
        // Reads use the processors of the server: a tenant never has all of them.
        let mut schedule = Schedule::new(max_waiting).shared();
        (0..count).for_each(|_| schedule.add_worker(()));
        Self(Arc::new(Inner { schedule: Mutex::new(schedule), max_waiting, timeout }))
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// Returns an error if too many reads of the tenant wait, or if none becomes free in time.
    pub async fn acquire(&self, tenant: &TenantId) -> Result<Permit, PoolError> {
        let (sender, receiver) = oneshot::channel();
        let enqueued = self.0.schedule().enqueue(tenant, sender, oneshot::Sender::is_closed, Instant::now());
        enqueued.map_err(|_| PoolError::QueueFull(self.0.max_waiting))?;
        self.0.dispatch();
        match tokio::time::timeout(self.0.timeout, receiver).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(PoolError::Busy(self.0.timeout.as_secs())),
        }
    }
}

impl std::fmt::Debug for FairPermits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FairPermits").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Inner {
    fn schedule(&self) -> MutexGuard<'_, Schedule<(), oneshot::Sender<Permit>>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free permits to waiting reads.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = self.schedule().next(Instant::now());
            let Some(((), tenant, number, waiting)) = next else { return };
            // If the caller has left, the permit is given back when it is dropped here.
            drop(waiting.send(Permit { tenant, number, permits: Arc::clone(self) }));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut schedule = self.permits.schedule();
        schedule.finish(&self.tenant, self.number, false, Instant::now());
        schedule.add_worker(());
        drop(schedule);
        self.permits.dispatch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_with_many_reads_leaves_a_permit_to_others() {
        let permits = FairPermits::new(2, 2, Duration::from_millis(50));
        let [a, b] = ["a", "b"].map(|name| TenantId::new(name).unwrap());
        let first = permits.acquire(&a).await.unwrap();
        assert_eq!(permits.acquire(&a).await.unwrap_err(), PoolError::Busy(0));
        let second = permits.acquire(&b).await.unwrap();
        drop(first);
        let first = permits.acquire(&a).await.unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (permits, a) = (permits.clone(), a.clone());
                tokio::spawn(async move { permits.acquire(&a).await.map(drop) })
            })
            .collect();
        let mut errors = Vec::new();
        for task in waiting {
            errors.extend(task.await.unwrap().err());
        }
        assert_eq!(errors.len(), 3);
        assert!(errors.contains(&PoolError::QueueFull(2)), "{errors:?}");
        drop((first, second));
        assert!(permits.acquire(&a).await.is_ok(), "those that left do not hold a permit");
    }
}
