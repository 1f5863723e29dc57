//! Refusals and the metric of a tenant's limits.

use wardroom_domain::RefusalReason;
use wardroom_head::EntityLimit;
use wardroom_sources::RefusalCause;

use crate::metrics as names;

/// Counts records that a limit refused, or kept out of detection.
pub(crate) fn count_limited(limit: &'static str, records: u64) {
    if records > 0 {
        metrics::counter!(names::LIMITED_RECORDS_TOTAL, "limit" => limit).increment(records);
    }
}

/// Returns and counts the refusal of a record beyond a limit.
pub(crate) fn entity_refusal(limit: &EntityLimit) -> RefusalCause {
    count_limited(limit.as_str(), 1);
    (RefusalReason::EntityLimit, limit.to_string())
}
