//! Which slot a restart begins at: pure arithmetic over the duties of the validators.

use std::collections::BTreeMap;

/// Duties of the validators of one client, by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Duties {
    /// Slots in which one of them proposes a block.
    pub(super) proposals: Vec<u64>,
    /// Number of them that attest, by slot.
    pub(super) attestations: BTreeMap<u64, u64>,
}

/// Returns the slot from `first` to `last` to begin at: no proposal within `window` slots from it, and of those the one
/// with the fewest attestations, the earliest if several are equal. `None` if every slot has a proposal too near.
pub(super) fn safe_slot(duties: &Duties, first: u64, last: u64, window: u64) -> Option<u64> {
    let attestations =
        |slot: u64| -> u64 { duties.attestations.range(slot..slot + window).map(|(_, count)| count).sum() };
    let is_free = |slot: &u64| !duties.proposals.iter().any(|proposal| (*slot..slot + window).contains(proposal));
    (first..=last).filter(is_free).min_by_key(|slot| (attestations(*slot), *slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_never_missed_and_attestations_rarely() {
        let duties = Duties { proposals: vec![12, 20], attestations: BTreeMap::from([(10, 3), (15, 1)]) };
        assert_eq!(safe_slot(&duties, 10, 30, 3), Some(16), "13 has the attestation of 15");
        assert_eq!(safe_slot(&duties, 10, 13, 3), Some(13));
        assert_eq!(safe_slot(&duties, 10, 12, 3), None);
        assert_eq!(safe_slot(&Duties::default(), 7, 9, 4), Some(7));
    }

    proptest::proptest! {
        #[test]
        fn a_slot_has_no_proposal_in_its_window(
            proposals in proptest::collection::vec(0_u64..64, 0..8),
            attestations in proptest::collection::btree_map(0_u64..64, 1_u64..5, 0..20),
            window in 1_u64..8,
        ) {
            let duties = Duties { proposals, attestations };
            if let Some(slot) = safe_slot(&duties, 5, 50, window) {
                proptest::prop_assert!((5..=50).contains(&slot));
                let missed = duties.proposals.iter().filter(|proposal| (slot..slot + window).contains(*proposal));
                proptest::prop_assert_eq!(missed.count(), 0);
            }
        }
    }
}
