//! Bounds the memory of results that clients have not read yet.
//!
//! Problem: a result stays in the server's memory until its client has read it, and clients may not read. Model: each
//! result is counted until it is dropped, by tenant and in all. Guarantee: the results of all queries take a few times
//! `lake.query.max-bytes`, and one tenant at most half of that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wardroom_domain::TenantId;

/// Results of maximum size that a tenant may have in memory.
const RESULTS_PER_TENANT: u64 = 2;
/// Results of maximum size in memory, of all tenants.
const RESULTS_IN_ALL: u64 = 4;

/// The results in memory.
#[derive(Debug)]
pub(crate) struct ResultBudget {
    max_bytes: u64,
    /// Bytes by tenant.
    held: Mutex<BTreeMap<TenantId, u64>>,
}

/// Room for one result.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<ResultBudget>,
    tenant: TenantId,
    bytes: u64,
}

impl ResultBudget {
    /// Creates a budget for results of up to `max_bytes` each.
    pub(crate) fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self { max_bytes, held: Mutex::default() })
    }

    /// Reserves room for a result; returns `None` if too many are in memory.
    pub(crate) fn reserve(self: &Arc<Self>, tenant: &TenantId, bytes: u64) -> Option<Reservation> {
        let mut held = self.held();
        let in_all: u64 = held.values().sum();
        let of_tenant = held.get(tenant).copied().unwrap_or_default();
        let fits = of_tenant.saturating_add(bytes) <= self.max_bytes.saturating_mul(RESULTS_PER_TENANT)
            && in_all.saturating_add(bytes) <= self.max_bytes.saturating_mul(RESULTS_IN_ALL);
        if !fits {
            return None;
        }
        held.insert(tenant.clone(), of_tenant + bytes);
        Some(Reservation { budget: Arc::clone(self), tenant: tenant.clone(), bytes })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<TenantId, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Holds the room until the result is dropped.
    pub(crate) fn hold(self, result: Vec<u8>) -> Bytes {
        struct Held {
            result: Vec<u8>,
            _room: Reservation,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.result
            }
        }
        Bytes::from_owner(Held { result, _room: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        let rest = held.get(&self.tenant).copied().unwrap_or_default().saturating_sub(self.bytes);
        if rest == 0 {
            held.remove(&self.tenant);
        } else {
            held.insert(self.tenant.clone(), rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_until_they_are_dropped() {
        let budget = ResultBudget::new(10);
        let [a, b, c] = ["a", "b", "c"].map(|name| TenantId::new(name).unwrap());
        let first = budget.reserve(&a, 10).unwrap().hold(vec![1; 10]);
        let second = budget.reserve(&a, 10).unwrap();
        assert!(budget.reserve(&a, 1).is_none(), "a tenant has a share");
        let others = [budget.reserve(&b, 10).unwrap(), budget.reserve(&b, 10).unwrap()];
        assert!(budget.reserve(&c, 1).is_none(), "all tenants together have a limit");
        let copy = first.slice(0..5);
        drop(first);
        assert!(budget.reserve(&a, 1).is_none(), "a part is still being read");
        assert_eq!(copy.len(), 5);
        drop(copy);
        assert!(budget.reserve(&a, 10).is_some());
        drop((second, others));
        assert!(budget.held().is_empty());
    }
}
