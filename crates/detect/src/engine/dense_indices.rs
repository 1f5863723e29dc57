//! The indices of a list of which some entries are evicted.

/// Old index → new index; `None` for evicted entries.
pub(super) type IndexMap = Vec<Option<u32>>;

/// Returns the new index of every kept entry.
pub(super) fn dense_indices(keep: &[bool]) -> IndexMap {
    let mut next = 0;
    keep.iter().map(|kept| kept.then(|| (next, next += 1).0)).collect()
}

/// Keeps the marked entries.
pub(super) fn retain_by<T>(list: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    list.retain(|_| keep.next().copied().unwrap_or_default());
    list.shrink_to_fit();
}
