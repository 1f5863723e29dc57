//! Deduplication of log, span and deployment requests: senders retry requests that got no response, and a log
//! line counted twice looks like an error burst.
//!
//! A log line has no id, so a whole request is recognised by the hash of its body. Guarantee: a request retried within
//! 24 hours of its first arrival has no second effect, as long as a tenant sends at most
//! [`MAX_REQUESTS_PER_GENERATION`] such requests a day; above that rate the cache covers a shorter time. The cache
//! keeps two generations, so that eviction drops a whole one. Time is the arrival time stored on the bus, so that a
//! replay evicts the same entries.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A request is remembered for at least this long, in ms.
const MIN_RETENTION_MS: i64 = 24 * 3600 * 1000;
/// Entries of one generation.
pub(crate) const MAX_REQUESTS_PER_GENERATION: usize = 500_000;

/// Fingerprints of one tenant's recent requests.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DedupCache {
    young: BTreeSet<u64>,
    old: BTreeSet<u64>,
    /// Start of the young generation, in ms.
    since_ms: i64,
}

impl DedupCache {
    /// Returns whether the request was seen before.
    pub fn contains(&self, fingerprint: u64, received_ms: i64) -> bool {
        let expired = received_ms - self.since_ms >= 2 * MIN_RETENTION_MS;
        !expired && (self.young.contains(&fingerprint) || self.old.contains(&fingerprint))
    }

    /// Adds a request.
    pub fn insert(&mut self, fingerprint: u64, received_ms: i64) {
        if received_ms - self.since_ms >= MIN_RETENTION_MS || self.young.len() >= MAX_REQUESTS_PER_GENERATION {
            let expired = received_ms - self.since_ms >= 2 * MIN_RETENTION_MS;
            self.old = if expired { BTreeSet::new() } else { std::mem::take(&mut self.young) };
            self.young.clear();
            self.since_ms = received_ms;
        }
        self.young.insert(fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// Inserts a request; returns whether it is new.
    fn insert_new(cache: &mut DedupCache, fingerprint: u64, received_ms: i64) -> bool {
        let known = cache.contains(fingerprint, received_ms);
        cache.insert(fingerprint, received_ms);
        !known
    }

    #[test]
    fn a_request_is_remembered_for_one_to_two_days() {
        let start = 1_795_255_038_178;
        for after_ms in [0, 1000, 3 * 60_000, 3 * HOUR_MS, 23 * HOUR_MS] {
            let mut cache = DedupCache::default();
            (0..100).for_each(|other| assert!(insert_new(&mut cache, other, start - HOUR_MS)));
            assert!(insert_new(&mut cache, 1 << 40, start));
            assert!(!insert_new(&mut cache, 1 << 40, start + after_ms), "{after_ms} ms later");
            assert!(insert_new(&mut cache, 1 << 40, start + after_ms + 48 * HOUR_MS));
        }
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let mut cache = DedupCache::default();
        (0..3 * MAX_REQUESTS_PER_GENERATION as u64).for_each(|other| assert!(insert_new(&mut cache, other, 0)));
        assert!(cache.young.len() + cache.old.len() <= 2 * MAX_REQUESTS_PER_GENERATION);
        assert!(!insert_new(&mut cache, 3 * MAX_REQUESTS_PER_GENERATION as u64 - 1, 0));
    }
}
