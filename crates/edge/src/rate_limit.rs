//! Limits of the requests of one caller, and of one address of clients without a credential: a program that asks in a
//! loop must not take the server from the others.
//!
//! Model: a bucket of requests for each, filled at a steady rate. Telemetry has its own limits.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use wardroom_domain::{Identity, Timestamp};

use crate::config::Config;
use crate::connections::client_of;
use crate::problem::Problem;

/// Requests that may be sent at once, as a multiple of the requests of a second.
const BURST_SECONDS: f64 = 2.0;
/// Maximum number of buckets of each kind; beyond it full ones are forgotten, and then no further one is limited.
const MAX_BUCKETS: usize = 10_000;

/// The limits of a port; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RateLimits {
    /// By tenant and principal.
    callers: Buckets<(String, String)>,
    /// By address, for requests of public pages.
    public: Buckets<IpAddr>,
    /// By address, for requests that had to have a valid credential: who guesses, or has an old one, keeps no other
    /// client of the same proxy from the login.
    refused: Buckets<IpAddr>,
}

impl RateLimits {
    /// Creates full buckets.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            callers: Buckets::new(config.requests_per_second, "edge.requests-per-second"),
            public: Buckets::new(config.anonymous_requests_per_second, "edge.anonymous-requests-per-second"),
            refused: Buckets::new(config.anonymous_requests_per_second, "edge.anonymous-requests-per-second"),
        }
    }

    /// Takes a request from the caller's bucket.
    ///
    /// # Errors
    /// Returns 429 if it is empty.
    pub(crate) fn take(&self, caller: &Identity, now: Timestamp) -> Result<(), Problem> {
        let key = (caller.tenant.to_string(), caller.principal.to_string());
        self.callers.take(key, &caller.principal, now)
    }

    /// Takes a request without a valid credential from the bucket of its client's address, one for public pages and one
    /// for the others.
    ///
    /// # Errors
    /// Returns 429 if it is empty.
    pub(crate) fn take_anonymous(&self, address: IpAddr, is_public: bool, now: Timestamp) -> Result<(), Problem> {
        let client = client_of(address);
        let buckets = if is_public { &self.public } else { &self.refused };
        buckets.take(client, &format_args!("{client}, without a valid credential,"), now)
    }
}

/// Buckets that are filled at one rate.
#[derive(Clone, Debug)]
struct Buckets<K> {
    per_second: f64,
    /// Name of the setting, for the remedy.
    setting: &'static str,
    buckets: Arc<Mutex<HashMap<K, Bucket>>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Creates full buckets; 0 means no limit.
    fn new(per_second: u32, setting: &'static str) -> Self {
        Self { per_second: f64::from(per_second), setting, buckets: Arc::default() }
    }

    fn take(&self, key: K, who: &dyn Display, now: Timestamp) -> Result<(), Problem> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let full = self.per_second * BURST_SECONDS;
        let filled = |bucket: &Bucket| {
            let seconds = (now.seconds_f64() - bucket.at.seconds_f64()).max(0.0);
            seconds.mul_add(self.per_second, bucket.left).min(full)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| filled(bucket) < full);
            if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
                return Ok(());
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: full, at: now });
        let left = filled(bucket);
        (bucket.left, bucket.at) = (left, now);
        if left < 1.0 {
            let wait = (1.0 - left) / self.per_second;
            let (limit, setting) = (self.per_second, self.setting);
            let detail = format!("{who} sends more than {limit} requests a second; send fewer, or raise {setting}");
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
        let limits = |requests_per_second| RateLimits::new(&Config { requests_per_second, ..Config::default() });
        let (limits, unlimited) = (limits(10), limits(0));
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
        assert!((0..1000).all(|_| unlimited.take(&ann, at(0)).is_ok()));
    }

    #[test]
    fn addresses_without_a_credential_are_limited_each_for_itself() {
        let config = Config { anonymous_requests_per_second: 5, ..Config::default() };
        let limits = RateLimits::new(&config);
        let (now, address) = (Timestamp::from_millis(0), |text: &str| text.parse::<IpAddr>().unwrap());
        let taken = |text: &str| (0..50).filter(|_| limits.take_anonymous(address(text), false, now).is_ok()).count();
        assert_eq!((taken("192.0.2.1"), taken("192.0.2.2")), (10, 10));
        assert_eq!((taken("2001:db8::1"), taken("2001:db8::2:1")), (10, 0), "one network of IPv6 is one client");
        let refused = limits.take_anonymous(address("192.0.2.1"), false, now).unwrap_err();
        assert!(refused.detail().contains("edge.anonymous-requests-per-second"), "{}", refused.detail());
        assert!(limits.take_anonymous(address("192.0.2.1"), true, now).is_ok(), "the login is another bucket");
        let many = (0..MAX_BUCKETS as u32 * 2)
            .filter(|n| limits.take_anonymous(IpAddr::V4((0x0b00_0000 + n).into()), false, now).is_ok());
        assert_eq!(many.count(), MAX_BUCKETS * 2, "a flood of addresses does not lock out others");
        assert!(limits.refused.buckets.lock().unwrap().len() <= MAX_BUCKETS);
    }
}
