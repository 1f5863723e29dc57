//! Limits of the requests of one caller: a program that asks in a loop must not take the server from the others.
//!
//! Model: a bucket of requests for each caller, filled at a steady rate. Telemetry has its own limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use wardroom_domain::{Identity, Timestamp};

use crate::problem::Problem;

/// Requests that a caller may send at once, as a multiple of the requests of a second.
const BURST_SECONDS: f64 = 2.0;
/// Maximum number of callers whose requests are counted; beyond it those with full buckets are forgotten.
const MAX_CALLERS: usize = 10_000;

/// The buckets of all callers; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RateLimits {
    per_second: f64,
    buckets: Arc<Mutex<HashMap<(String, String), Bucket>>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

impl RateLimits {
    /// Creates full buckets; 0 means no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Arc::default() }
    }

    /// Takes a request from the caller's bucket.
    ///
    /// # Errors
    /// Returns 429 if it is empty.
    pub(crate) fn take(&self, caller: &Identity, now: Timestamp) -> Result<(), Problem> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let full = self.per_second * BURST_SECONDS;
        let filled = |bucket: &Bucket| {
            let seconds = (now.seconds_f64() - bucket.at.seconds_f64()).max(0.0);
            seconds.mul_add(self.per_second, bucket.left).min(full)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CALLERS {
            buckets.retain(|_, bucket| filled(bucket) < full);
        }
        let key = (caller.tenant.to_string(), caller.principal.to_string());
        let bucket = buckets.entry(key).or_insert(Bucket { left: full, at: now });
        let left = filled(bucket);
        (bucket.left, bucket.at) = (left, now);
        if left < 1.0 {
            let wait = (1.0 - left) / self.per_second;
            let detail = format!(
                "{} sends more than {} requests a second; send fewer, or raise edge.requests-per-second",
                caller.principal, self.per_second
            );
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).retry_after(wait));
        }
        bucket.left = left - 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Principal, TenantId};

    use super::*;

    #[test]
    fn a_caller_over_the_rate_waits_and_the_others_do_not() {
        let limits = RateLimits::new(10);
        let caller = |name: &str| Identity {
            tenant: TenantId::main(),
            principal: Principal::new(name).unwrap(),
            role: AccessRole::Viewer,
        };
        let (ann, bob) = (caller("ann"), caller("bob"));
        let at = Timestamp::from_millis;
        let taken = (0..100).filter(|_| limits.take(&ann, at(0)).is_ok()).count();
        assert_eq!(taken, 20, "two seconds' worth at once");
        assert_eq!(limits.take(&ann, at(0)).unwrap_err().code(), "too_many_requests");
        assert!(limits.take(&bob, at(0)).is_ok());
        assert!(limits.take(&ann, at(100)).is_ok() && limits.take(&ann, at(100)).is_err());
        assert!(limits.take(&ann, at(50)).is_err(), "a clock that goes back gives nothing");
        let taken = (0..100).filter(|_| limits.take(&ann, at(60_000)).is_ok()).count();
        assert_eq!(taken, 20);
        let unlimited = RateLimits::new(0);
        assert!((0..1000).all(|_| unlimited.take(&ann, at(0)).is_ok()));
    }
}
