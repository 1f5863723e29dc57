//! A memory budget that senders share fairly.
//!
//! Problem: one sender with many large bodies uses up a common budget, and all others get 503. Model: dynamic
//! thresholds, as in the shared buffers of switches (Choudhury and Hahne, 1998): a sender may hold at most half of what
//! the others leave, and three quarters with small bodies, so some of the budget is always free for the next sender and
//! for small bodies. Work of the server itself has no share, only the total.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wardroom_domain::{Identity, Principal, TenantId};

/// Bodies up to this size are small, in bytes.
const SMALL_BODY_BYTES: usize = 1 << 20;

/// A budget in bytes; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
    /// Bytes held by the sender whose share this is.
    held_by_sender: Option<Arc<AtomicUsize>>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    used: AtomicUsize,
    /// One entry for each sender ever seen, so at most one for each token.
    senders: Mutex<BTreeMap<(TenantId, Principal), Arc<AtomicUsize>>>,
}

/// The budget, or the sender's share of it, is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// Reserved bytes of a budget, released on drop.
#[derive(Debug)]
pub struct BudgetPermit {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `total` bytes.
    pub(crate) fn new(total: usize) -> Self {
        let shared = Shared { total, used: AtomicUsize::new(0), senders: Mutex::default() };
        Self { shared: Arc::new(shared), held_by_sender: None }
    }

    /// Returns the sender's share of the budget.
    pub(crate) fn of_sender(&self, identity: &Identity) -> Self {
        let mut senders = self.shared.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (identity.tenant.clone(), identity.principal.clone());
        let held_by_sender = Some(Arc::clone(senders.entry(key).or_default()));
        Self { shared: Arc::clone(&self.shared), held_by_sender }
    }

    /// Returns a permit for no bytes, which can grow.
    pub(crate) fn permit(&self) -> BudgetPermit {
        BudgetPermit { budget: self.clone(), bytes: 0 }
    }

    /// Takes `additional` bytes for a body that has `bytes` already.
    fn take(&self, bytes: usize, additional: usize) -> Result<(), Exhausted> {
        let Shared { total, used, .. } = &*self.shared;
        if let Some(held) = &self.held_by_sender {
            let held = held.load(Ordering::Acquire);
            let left_by_others = total.saturating_sub(used.load(Ordering::Acquire).saturating_sub(held));
            let share = match bytes.saturating_add(additional) {
                // A body of any size may be decoded when nothing else is.
                _ if held == bytes && left_by_others == *total => *total,
                small if small <= SMALL_BODY_BYTES => left_by_others / 4 * 3,
                _ => left_by_others / 2,
            };
            if held.saturating_add(additional) > share {
                return Err(Exhausted);
            }
        }
        let fits = |used: usize| used.checked_add(additional).filter(|used| used <= total);
        used.try_update(Ordering::AcqRel, Ordering::Acquire, fits).map_err(|_| Exhausted)?;
        if let Some(held) = &self.held_by_sender {
            held.fetch_add(additional, Ordering::AcqRel);
        }
        Ok(())
    }
}

impl BudgetPermit {
    pub(crate) fn grow(&mut self, additional: usize) -> Result<(), Exhausted> {
        self.budget.take(self.bytes, additional)?;
        self.bytes += additional;
        Ok(())
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        self.budget.shared.used.fetch_sub(self.bytes, Ordering::AcqRel);
        if let Some(held) = &self.budget.held_by_sender {
            held.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::AccessRole;

    use super::*;

    const MIB: usize = 1 << 20;

    fn sender(name: &str) -> Identity {
        Identity { tenant: TenantId::main(), principal: Principal::new(name).unwrap(), role: AccessRole::Sender }
    }

    fn take(budget: &Budget, bytes: usize) -> Result<BudgetPermit, Exhausted> {
        let mut permit = budget.permit();
        permit.grow(bytes)?;
        Ok(permit)
    }

    #[test]
    fn a_sender_leaves_half_of_the_rest_to_the_others() {
        let budget = Budget::new(64 * MIB);
        let (first, second) = (budget.of_sender(&sender("first")), budget.of_sender(&sender("second")));
        let held: Vec<_> = (0..20).filter_map(|_| take(&first, 8 * MIB).ok()).collect();
        assert_eq!(held.len(), 4);
        let of_second: Vec<_> = (0..20).filter_map(|_| take(&second, 8 * MIB).ok()).collect();
        assert_eq!(of_second.len(), 2, "half of what the first left");
        assert!(take(&first, 2 * MIB).is_err() && take(&second, MIB).is_ok(), "a small body passes");
        assert!(take(&budget, 16 * MIB).is_ok(), "the server's own work has no share");
        drop((held, of_second));
        assert_eq!(budget.shared.used.load(Ordering::Acquire), 0);
    }

    #[test]
    fn small_bodies_of_a_sender_pass_beside_its_large_ones() {
        let budget = Budget::new(64 * MIB);
        let one = budget.of_sender(&sender("one"));
        let _large = take(&one, 31 * MIB).unwrap();
        assert!(take(&one, 2 * MIB).is_err());
        assert!(take(&one, MIB).is_ok());
    }

    #[test]
    fn one_body_may_use_the_whole_budget_when_nothing_else_is_decoded() {
        let budget = Budget::new(64 * MIB);
        let mut permit = budget.of_sender(&sender("one")).permit();
        (0..64).for_each(|_| permit.grow(MIB).unwrap());
        assert!(permit.grow(1).is_err());
        assert!(take(&budget.of_sender(&sender("two")), 1).is_err());
    }
}
