//! Byte rate limit per tenant, so that one tenant cannot fill the bus for the others.
//!
//! A token bucket with a burst of two seconds, checked when the body has been received. Requests over the limit get 503
//! with `Retry-After`, so senders retry and lose nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use wardroom_domain::{TenantId, Timestamp};

/// Capacity of a bucket, in seconds of the rate.
const BURST_SECONDS: f64 = 2.0;

/// The token buckets of all tenants.
#[derive(Debug)]
pub struct ByteRateLimiter {
    per_second: f64,
    tenants: Mutex<BTreeMap<TenantId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Bytes available; negative after a request larger than the bucket.
    available: f64,
    /// Time of the last refill.
    refilled_at: Timestamp,
}

impl ByteRateLimiter {
    /// Creates a limiter with this rate in bytes per second for each tenant; 0 disables the limit.
    pub fn new(per_second: u64) -> Self {
        Self { per_second: per_second as f64, tenants: Mutex::default() }
    }

    /// Takes the bytes of one request from the tenant's bucket. A request larger than the bucket passes when the bucket
    /// is full and leaves it negative.
    ///
    /// # Errors
    /// Returns the seconds until the request may be retried.
    pub(crate) fn take(&self, tenant: &TenantId, bytes: usize, now: Timestamp) -> Result<(), f64> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let capacity = self.per_second * BURST_SECONDS;
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = tenants.entry(tenant.clone()).or_insert(Bucket { available: capacity, refilled_at: now });
        let seconds = now.nanos().saturating_sub(bucket.refilled_at.nanos()).max(0) as f64 / 1e9;
        bucket.available = (bucket.available + seconds * self.per_second).min(capacity);
        bucket.refilled_at = bucket.refilled_at.max(now);
        let needed = (bytes as f64).min(capacity);
        if bucket.available < needed {
            return Err((needed - bucket.available) / self.per_second);
        }
        bucket.available -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_limited_independently() {
        let limiter = ByteRateLimiter::new(1000);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let at = |ms: i64| Timestamp::from_millis(ms);
        let accepted =
            |tenant: &TenantId, ms: i64| (0..100).filter(|_| limiter.take(tenant, 100, at(ms)).is_ok()).count();
        assert_eq!(accepted(&a, 0), 20);
        assert_eq!(limiter.take(&a, 100, at(0)), Err(0.1));
        assert_eq!(accepted(&b, 0), 20);
        assert_eq!(accepted(&a, 1000), 10);
        assert_eq!(accepted(&a, 500), 0, "a clock that goes backwards adds no tokens");
        assert_eq!(accepted(&a, 1_000_000), 20, "the bucket holds at most the burst");
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_leaves_a_debt() {
        let (limiter, tenant) = (ByteRateLimiter::new(1000), TenantId::main());
        assert_eq!(limiter.take(&tenant, 5000, Timestamp::from_millis(0)), Ok(()));
        assert!(limiter.take(&tenant, 1, Timestamp::from_millis(2000)).is_err());
        assert_eq!(limiter.take(&tenant, 1, Timestamp::from_millis(3100)), Ok(()));
        assert_eq!(ByteRateLimiter::new(0).take(&tenant, 1 << 40, Timestamp::from_millis(0)), Ok(()));
    }
}
