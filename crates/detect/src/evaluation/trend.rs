//! Straight lines through points of time and value, of which some may be wrong.

/// The Theil–Sen line of some points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// Median of the slopes of all pairs, per second.
    pub(super) slope: f64,
    /// Share of the pairs that rise, less the share that fall: 1 if every point is above the one before.
    pub(super) agreement: f64,
    /// Time from the first point to the last, in seconds.
    pub(super) seconds: f64,
}

/// Points of which all pairs are compared; longer runs are thinned out.
const MAX_POINTS: usize = 24;

/// Returns the line through points (ms, value), oldest first; `None` for fewer than three points.
pub(super) fn trend(points: impl ExactSizeIterator<Item = (i64, f64)>) -> Option<Trend> {
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    // The newest point is always among them.
    let skipped = points.len().checked_sub(1)? % every;
    let kept: Vec<(i64, f64)> = points.skip(skipped).step_by(every).collect();
    if kept.len() < 3 {
        return None;
    }
    let mut slopes = Vec::with_capacity(kept.len() * kept.len() / 2);
    let mut sign = 0.0;
    for (index, (to_ms, to)) in kept.iter().enumerate() {
        for (from_ms, from) in &kept[..index] {
            let slope = (to - from) * 1000.0 / (to_ms - from_ms).max(1) as f64;
            slopes.push(slope);
            sign += if slope > 0.0 {
                1.0
            } else if slope < 0.0 {
                -1.0
            } else {
                0.0
            };
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let seconds = (kept.last()?.0 - kept.first()?.0) as f64 / 1000.0;
    Some(Trend { slope: slopes[slopes.len() / 2], agreement: sign / slopes.len() as f64, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Option<Trend> {
        let points: Vec<_> = values.iter().zip(0..).map(|(value, step)| (step * 10_000, *value)).collect();
        trend(points.into_iter())
    }

    #[test]
    fn the_line_ignores_an_outlier() {
        let mut values: Vec<f64> = (0..20).map(f64::from).collect();
        values[7] = 900.0;
        let found = line(&values).unwrap();
        assert!((found.slope - 0.1).abs() < 0.01 && found.agreement > 0.8, "{found:?}");
        assert_eq!(line(&[1.0, 2.0]), None);
    }

    #[test]
    fn a_saw_has_no_agreement_and_long_runs_are_thinned_out() {
        let saw: Vec<f64> = (0..400).map(|step| f64::from(step % 10)).collect();
        assert!(line(&saw).unwrap().agreement.abs() < 0.4);
        let rise: Vec<f64> = (0..400).map(f64::from).collect();
        let found = line(&rise).unwrap();
        assert!(found.agreement == 1.0 && found.seconds > 3800.0, "{found:?}");
    }
}
