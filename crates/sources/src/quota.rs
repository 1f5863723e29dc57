//! How many bytes a tenant may append: one tenant's flood must not fill the bus for the others.
//!
//! A bucket of two seconds' worth that refills with time, asked after a request is understood and before it
//! is appended. Over it the answer is 503 with `Retry-After`: senders wait and lose nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use wardroom_domain::{TenantId, Timestamp};

/// Seconds' worth of bytes that may come at once.
const BURST_SECONDS: f64 = 2.0;

/// The buckets of all tenants.
#[derive(Debug)]
pub struct ByteQuota {
    per_second: f64,
    tenants: Mutex<BTreeMap<TenantId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

impl ByteQuota {
    /// So many bytes a second for each tenant; 0 for no limit.
    pub fn new(per_second: u64) -> Self {
        Self { per_second: per_second as f64, tenants: Mutex::default() }
    }

    /// Takes the bytes of one request. A request larger than the bucket passes when the bucket is full, and
    /// leaves a debt.
    ///
    /// # Errors
    /// The seconds until it may be tried again.
    pub(crate) fn take(&self, tenant: &TenantId, bytes: usize, now: Timestamp) -> Result<(), f64> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let full = self.per_second * BURST_SECONDS;
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = tenants.entry(tenant.clone()).or_insert(Bucket { left: full, at: now });
        let seconds = now.nanos().saturating_sub(bucket.at.nanos()).max(0) as f64 / 1e9;
        bucket.left = (bucket.left + seconds * self.per_second).min(full);
        bucket.at = bucket.at.max(now);
        let wanted = (bytes as f64).min(full);
        if bucket.left < wanted {
            return Err((wanted - bucket.left) / self.per_second);
        }
        bucket.left -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_flood_is_its_own() {
        let quota = ByteQuota::new(1000);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let at = |ms: i64| Timestamp::from_millis(ms);
        let passed = |tenant: &TenantId, ms: i64| (0..100).filter(|_| quota.take(tenant, 100, at(ms)).is_ok()).count();
        assert_eq!(passed(&a, 0), 20);
        assert_eq!(quota.take(&a, 100, at(0)), Err(0.1));
        assert_eq!(passed(&b, 0), 20);
        assert_eq!(passed(&a, 1000), 10);
        assert_eq!(passed(&a, 500), 0, "a clock that goes back gives nothing");
        assert_eq!(passed(&a, 1_000_000), 20, "no more than the burst is saved up");
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_alone_and_is_paid_for() {
        let (quota, tenant) = (ByteQuota::new(1000), TenantId::main());
        assert_eq!(quota.take(&tenant, 5000, Timestamp::from_millis(0)), Ok(()));
        assert!(quota.take(&tenant, 1, Timestamp::from_millis(2000)).is_err());
        assert_eq!(quota.take(&tenant, 1, Timestamp::from_millis(3100)), Ok(()));
        assert_eq!(ByteQuota::new(0).take(&tenant, 1 << 40, Timestamp::from_millis(0)), Ok(()));
    }
}
