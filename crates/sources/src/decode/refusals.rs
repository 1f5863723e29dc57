//! Refusals of single records, as ranges of positions in the request.

use wardroom_domain::{Refusal, RefusalReason};

/// Why a record is refused: the reason, and a detail for the sender that names the field and the remedy.
pub type RefusalCause = (RefusalReason, String);

/// Adds a refusal; extends the last one if it has the same reason and is adjacent.
pub(crate) fn push_refusal(refused: &mut Vec<Refusal>, position: u32, reason: RefusalReason, detail: String) {
    match refused.last_mut() {
        // Several samples may come from one record of the request.
        Some(last) if last.reason == reason && (last.first..=last.last).contains(&position) => {}
        Some(last) if last.reason == reason && last.last.checked_add(1) == Some(position) => last.last = position,
        _ => refused.push(Refusal { first: position, last: position, reason, detail }),
    }
}

/// Returns the refused ranges (first, last), ascending, with adjacent ranges merged.
pub(crate) fn merged_ranges(refused: &[Refusal]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = refused.iter().map(|refusal| (refusal.first, refusal.last)).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}
