//! What a finding says, for titles and evidence.

use wardroom_domain::{Finding, SignalId, SignalKind};
use wardroom_signals::SignalUnit;

use super::conditions::is_condition;

/// Returns what was measured, in words and numbers; no untrusted text but the resource's name of the tables.
pub(super) fn summary(finding: &Finding, unit: SignalUnit) -> String {
    let (value, expected) = (finding.value, finding.expected);
    let resource = resource_of(&finding.signal);
    let before = |text: String| format!("{text} (before: {})", quantity(expected, unit));
    match finding.rule.as_str() {
        "availability" if is_condition(&finding.signal.resource) => format!("{} fails", resource.replace('-', " ")),
        "availability" if value <= 0.0 => "down: none of its members is up".to_owned(),
        "availability" => format!("{} of its members are up (before: {})", percent(value), percent(expected)),
        "exporter-down" if value <= 0.0 => "its exporter cannot be scraped".to_owned(),
        "exporter-down" => format!("{} of its exporters can be scraped", percent(value)),
        "flapping" if is_condition(&finding.signal.resource) => {
            format!("{} fails again and again", resource.replace('-', " "))
        }
        "flapping" => "went down several times within 15 minutes".to_owned(),
        "errors" if unit == SignalUnit::PerSecond => before(format!("{} failures per second", number(value))),
        "errors" => format!("{} of requests fail (before: {})", percent(value), percent(expected)),
        "latency" => format!("requests take {} (before: {})", seconds(value), seconds(expected)),
        "traffic-lost" => format!("traffic stopped (before: {} per second)", number(expected)),
        "traffic-shift" => before(format!("{} requests per second", number(value))),
        "saturation" if unit == SignalUnit::Ratio => {
            format!("{resource} at {} of its limit (before: {})", percent(value), percent(expected))
        }
        "saturation-forecast" if unit == SignalUnit::Ratio => {
            format!("{resource} at {} of its limit and growing (before: {})", percent(value), percent(expected))
        }
        "saturation" => before(format!("{resource} near its limit: {}", quantity(value, unit))),
        "saturation-forecast" => before(format!("{resource} will reach its limit: {}", quantity(value, unit))),
        "saturation-shift" => before(format!("{resource} at {}", quantity(value, unit))),
        "queue-growing" => before(format!("{} waiting and growing", quantity(value, unit))),
        "crash-loop" if finding.signal.kind == SignalKind::Availability => {
            "crashes, and waits longer and longer to be started again".to_owned()
        }
        "crash-loop" => "started again several times within 15 minutes".to_owned(),
        "oom-kill" => "killed because its memory limit was reached".to_owned(),
        "freshness" => format!("newest success {} ago (before: {})", seconds(value), seconds(expected)),
        "expiry" if value <= 0.0 => "expired".to_owned(),
        "expiry" => format!("expires in {}", seconds(value)),
        "error-log-burst" => {
            format!("{} error lines per second (before: {})", number(value), number(expected))
        }
        _ => before(quantity(value, unit)),
    }
}

fn resource_of(signal: &SignalId) -> &str {
    match signal.resource.as_str() {
        "" if signal.kind == SignalKind::Queue => "queue",
        "" => "resource",
        resource => resource,
    }
}

fn quantity(value: f64, unit: SignalUnit) -> String {
    match unit {
        SignalUnit::Number => number(value),
        SignalUnit::Ratio => percent(value),
        SignalUnit::Seconds => seconds(value),
        SignalUnit::Bytes => bytes(value),
        SignalUnit::PerSecond => format!("{} per second", number(value)),
    }
}

/// Returns a number with about three digits.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value == value.round() {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

fn seconds(value: f64) -> String {
    let size = value.abs();
    if size < 1.0 {
        format!("{:.0} ms", value * 1000.0)
    } else if size < 120.0 {
        format!("{value:.1} s")
    } else if size < 7200.0 {
        format!("{:.0} minutes", value / 60.0)
    } else if size < 48.0 * 3600.0 {
        format!("{:.0} hours", value / 3600.0)
    } else {
        format!("{:.0} days", value / 86_400.0)
    }
}

fn bytes(value: f64) -> String {
    let (mut size, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size.abs() < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    format!("{} {unit}", number(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short_and_have_their_unit() {
        for (value, unit, text) in [
            (0.31, SignalUnit::Ratio, "31 %"),
            (0.0025, SignalUnit::Ratio, "0.25 %"),
            (0.23, SignalUnit::Seconds, "230 ms"),
            (259_000.0, SignalUnit::Seconds, "3 days"),
            (50e6, SignalUnit::Bytes, "47.7 MiB"),
            (12.25, SignalUnit::Number, "12.2"),
        ] {
            assert_eq!(quantity(value, unit), text);
        }
    }
}
