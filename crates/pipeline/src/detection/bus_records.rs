//! Bus records: decodes one, and finds the first that was received since a time.

use wardroom_bus::Record;
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Timestamp};
use wardroom_edge::InflateBudget;

use crate::state::tenants::Tenants;

/// Returns the offset of the first record in `low..high` that was received at or after `since` (binary search).
pub fn first_offset_since(
    read: impl Fn(u64) -> Option<Record>,
    (mut low, mut high): (u64, u64),
    since: Timestamp,
) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        match read(middle) {
            Some(record) if record.envelope.received_at < since => low = record.offset + 1,
            _ => high = middle,
        }
    }
    low
}

/// Decodes a record into a batch and resolves its series to ids.
///
/// # Errors
/// Returns an error if the record is malformed (permanent) or the inflate budget is exhausted (retryable).
pub fn decode_record(tenants: &Tenants, budget: &InflateBudget, record: &Record) -> Result<Batch, Failure> {
    let mut decoded = wardroom_sources::replay(&record.envelope, &record.body, budget)?;
    let (keys, read) = (decoded.metrics.keys(), |index: usize| decoded.metrics.labels(index));
    // The series limit was checked at intake; accepted series stay accepted.
    let found = tenants.resolve(&record.envelope.tenant, keys, &read, false);
    decoded.metrics.set_series_ids(found.ids, found.generation);
    Ok(decoded.into_batch(&record.body, record.envelope.received_at))
}
