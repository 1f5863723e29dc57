//! The part of a signal that a series is: by a rule and the series' labels.

use wardroom_domain::SignalKind;

use crate::compiled::Shape;
use crate::context::Context;
use crate::meaning::{Direction, Outcome, Part};

/// Returns the part of a signal that a series is, with the values that its labels have; `None` for a bucket or quantile
/// without a number.
pub(crate) fn part_of(context: &Context<'_>, part: Part, shape: Shape, outcome: Outcome, scale: f64) -> Option<Part> {
    let quantile = || context.view.get("quantile").and_then(share);
    Some(match part {
        Part::Requests(_) => Part::Requests(outcome),
        Part::Bucket(..) => match shape {
            Shape::Bucket => Part::Bucket(bound(context.view.get("le")?)? * scale, outcome),
            Shape::Sum => Part::DurationSum(outcome),
            Shape::Count => Part::DurationCount(outcome),
            Shape::Plain => Part::Quantile(quantile()?),
        },
        Part::DurationSum(_) => Part::DurationSum(outcome),
        Part::DurationCount(_) => Part::DurationCount(outcome),
        Part::Quantile(usual) => Part::Quantile(quantile().unwrap_or(usual)),
        other => other,
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
