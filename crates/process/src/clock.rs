//! The wall clock.

use wardroom_domain::Timestamp;

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the wall clock")]
pub fn now() -> Timestamp {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}
