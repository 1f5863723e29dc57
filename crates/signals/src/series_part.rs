//! The part of a signal that a series is: by a rule and the series' labels.

use wardroom_domain::SignalKind;

use crate::compiled::Shape;
use crate::context::Context;
use crate::convention::PartRule;
use crate::meaning::{Direction, Outcome, Part};

/// Returns the part of a signal that a series is; `None` for a bucket or quantile without a number.
pub(crate) fn part_of(
    context: &Context<'_>,
    rule: PartRule,
    shape: Shape,
    outcome: Outcome,
    scale: f64,
) -> Option<Part> {
    let quantile = || context.view.get("quantile").and_then(share);
    Some(match rule {
        PartRule::None => return None,
        PartRule::Requests => Part::Requests(outcome),
        PartRule::Failures => Part::Failures,
        PartRule::Duration => match shape {
            Shape::Bucket => Part::Bucket(bound(context.view.get("le")?)? * scale, outcome),
            Shape::Sum => Part::DurationSum(outcome),
            Shape::Count => Part::DurationCount(outcome),
            Shape::Plain => Part::Quantile(quantile()?),
        },
        PartRule::DurationSum => Part::DurationSum(outcome),
        PartRule::DurationCount => Part::DurationCount(outcome),
        PartRule::Quantile => Part::Quantile(quantile().unwrap_or(0.5)),
        PartRule::Value => Part::Value,
        PartRule::Rate => Part::Rate,
        PartRule::Limit => Part::Limit,
        PartRule::Free => Part::Free,
        PartRule::IdleRate => Part::IdleRate,
        PartRule::Up => Part::Up,
        PartRule::Desired => Part::Desired,
        PartRule::Available => Part::Available,
        PartRule::Time => Part::Time,
        PartRule::Count => Part::Count,
        PartRule::Drained => Part::Drained,
        PartRule::Added => Part::Added,
    })
}

fn bound(le: &str) -> Option<f64> {
    le.parse().ok().filter(|bound: &f64| !bound.is_nan())
}

/// Reads a quantile; some exporters write percent.
fn share(quantile: &str) -> Option<f64> {
    let number: f64 = quantile.parse().ok()?;
    let share = if number > 1.0 { number / 100.0 } else { number };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// Returns the name of the family that a histogram's or summary's series belongs to.
pub(crate) fn base_name(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Returns which values of a signal are bad, unless a rule says otherwise.
pub(crate) const fn usual_direction(kind: SignalKind) -> Direction {
    match kind {
        SignalKind::Availability | SignalKind::Expiry => Direction::Low,
        SignalKind::Traffic | SignalKind::Other => Direction::Neutral,
        _ => Direction::High,
    }
}
