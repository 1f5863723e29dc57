//! Rules over levels of log lines and of measurements that no convention knows.

use wardroom_domain::Severity;
use wardroom_signals::Direction;

use super::rule::{RuleInput, Sign, Verdict};

/// Error lines that are an effect, within all bad points.
const MIN_LINES: f64 = 20.0;
/// Smallest rate of error lines that is an effect, per second.
const MIN_LINES_PER_SECOND: f64 = 0.2;
/// Rise that is an effect and that is of high severity, as multiples of the usual rate.
const MORE_LINES: f64 = 4.0;
const MANY_MORE_LINES: f64 = 20.0;

/// Many more error lines than normal.
pub(super) fn error_logs(input: &RuleInput<'_>) -> Verdict {
    if !input.is_warm {
        return Verdict::Unknown;
    }
    let (value, base) = (input.point.value, input.baseline);
    let usual = base.high.max(base.center + 3.0 * base.spread);
    let limit = (usual * 1.5).max(base.center * MORE_LINES).max(MIN_LINES_PER_SECOND);
    if value <= limit {
        return Verdict::Good;
    }
    let since_ms = input.run.map_or(input.point.at_ms, |run| run.since_ms);
    let seconds = (input.point.at_ms - since_ms) as f64 / 1000.0 + input.window_seconds();
    let is_many = value >= MANY_MORE_LINES * base.center.max(MIN_LINES_PER_SECOND / 4.0);
    Verdict::Bad(Sign {
        is_ready: value * seconds >= MIN_LINES,
        severity: Some(if is_many { Severity::High } else { Severity::Warning }),
        ..Sign::above(limit, base.center, 0.34)
    })
}

/// Distance of an unknown measurement from its past that is evidence, in spreads.
const MIN_UNUSUAL_SPREADS: f64 = 8.0;
/// Rise or fall that is an effect, as a multiple of normal.
const SHIFTED: f64 = 2.0;

/// A large shift of a measurement that no convention knows.
pub(super) fn unusual(input: &RuleInput<'_>) -> Verdict {
    if !input.is_warm {
        return Verdict::Unknown;
    }
    let (value, base) = (input.point.value, input.baseline);
    let distance = MIN_UNUSUAL_SPREADS * base.spread.max(0.02 * base.center.abs());
    let opens = Some(input.config.unknown_series_open);
    let (up, down) = ((base.center * SHIFTED).max(base.center + distance), base.center - distance);
    if value > up && value > base.high && input.direction != Direction::Low {
        Verdict::Bad(Sign { opens, ..Sign::above(up, base.center, 0.25) })
    } else if value < down.min(base.center / SHIFTED) && value < base.low && input.direction != Direction::High {
        Verdict::Bad(Sign { opens, ..Sign::below(down, base.center, 0.25) })
    } else {
        Verdict::Good
    }
}
