//! Durations and times on the command line.

use std::time::Duration;

use wardroom_domain::Timestamp;
use wardroom_process::clock;

/// Parses a duration such as `90d`, `12h`, `30m` or `10s`. `flag` names the argument in the error.
///
/// # Errors
/// Returns an error if the text is no such duration.
pub fn parse_duration(flag: &str, text: &str) -> anyhow::Result<Duration> {
    let invalid = || anyhow::anyhow!("{flag}: {text:?} is not a duration such as 90d, 12h, 30m or 10s");
    let unit = text.chars().last().ok_or_else(invalid)?;
    let unit_seconds = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(invalid()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| invalid())?;
    Ok(Duration::from_secs(number.saturating_mul(unit_seconds)))
}

/// Parses a time: RFC 3339, or a duration before now.
///
/// # Errors
/// Returns an error if the text is neither.
pub fn parse_time_or_age(flag: &str, text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(age) = parse_duration(flag, text) {
        return Ok(clock::now().minus(age));
    }
    Timestamp::parse(text)
        .map_err(|error| anyhow::anyhow!("{flag}: {text:?} is neither RFC 3339 nor a duration such as 2h: {error}"))
}
