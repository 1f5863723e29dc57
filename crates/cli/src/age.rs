//! Ages as a person reads them: `12s`, `3m`, `5h`, `12d`.

use std::time::Duration;

use wardroom_domain::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Up to this many hours an age is in hours, beyond it in days.
const MAX_HOURS: u64 = 48;

/// Formats the age of a time in the largest unit that fits; a time to come is `in 3m`.
pub(crate) fn format_age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.nanos().saturating_sub(at.nanos()) / 1_000_000_000;
    let text = format_duration(Duration::from_secs(seconds.unsigned_abs()));
    if seconds < 0 { format!("in {text}") } else { text }
}

/// Formats a duration in the largest unit that fits.
pub(crate) fn format_duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..MINUTE => format!("{seconds}s"),
        seconds @ MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < MAX_HOURS * HOUR => format!("{}h", seconds / HOUR),
        seconds => format!("{}d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_the_largest_unit_that_fits() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let age = |seconds: i64| format_age(Timestamp::from_millis(now.millis() - seconds * 1000), now);
        let ages = [0, 59, 60, 3599, 3600, 86_400, 172_799, 172_800, -61].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "24h", "47h", "2d", "in 1m"]);
    }
}
