//! Whether an action helped: measured, against a control, over time.

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;

use crate::Config;

/// One signal that has to become good again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Which signal.
    pub signal: Labels,
    /// What was normal before the trouble.
    pub expected: f64,
    /// Above this it is bad.
    pub bad_above: f64,
}

/// A watched signal and its points, oldest first.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// What is expected of it.
    pub watched: &'a Watched,
    /// (time in ms, value).
    pub points: Vec<(i64, f64)>,
}

/// How far verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not enough seen yet; so many good samples so far.
    Waiting(u32),
    /// Twenty good samples of everything; the moment they were complete, in ms.
    Good(i64),
    /// The hold passed without a breach.
    Held,
    /// It became bad again, or never good in time.
    Failed,
    /// The control was unwell too: whatever got better cannot be put down to the action.
    NotAttributable,
}

/// Judges the time since an action.
///
/// `executed_ms` and `now_ms` are on the telemetry's clock; `mitigated_ms` is set once
/// [`Progress::Good`] was reached. `control` is the share of bad points of the control's signals while
/// the trouble lasted, or `None` if there is no control (then the hold is doubled).
pub fn verify(
    observed: &[Observed<'_>],
    executed_ms: i64,
    mitigated_ms: Option<i64>,
    now_ms: i64,
    control: Option<f64>,
    config: &Config,
) -> Progress {
    let since: Vec<Vec<(i64, bool)>> = observed
        .iter()
        .map(|observed| {
            let after = observed.points.iter().filter(|(at_ms, _)| *at_ms > executed_ms);
            after.map(|(at_ms, value)| (*at_ms, *value <= observed.watched.bad_above)).collect()
        })
        .collect();
    let hold_ms = config.hold as i64 * 1000 * if control.is_some() { 1 } else { 2 };
    if let Some(mitigated_ms) = mitigated_ms {
        let broke = since.iter().any(|points| longest_bad(points, mitigated_ms) >= config.breach_samples);
        return match now_ms >= mitigated_ms + hold_ms {
            _ if broke => Progress::Failed,
            true => Progress::Held,
            false => Progress::Waiting(config.good_samples),
        };
    }
    let good = since.iter().map(|points| good_tail(points)).min().unwrap_or(0);
    if good >= config.good_samples {
        if control.is_some_and(|bad_share| bad_share > 0.5) {
            return Progress::NotAttributable;
        }
        return Progress::Good(now_ms);
    }
    if now_ms > executed_ms + config.verify_timeout as i64 * 1000 { Progress::Failed } else { Progress::Waiting(good) }
}

/// Good samples at the end, without a bad one between.
fn good_tail(points: &[(i64, bool)]) -> u32 {
    points.iter().rev().take_while(|(_, good)| *good).count() as u32
}

/// The longest stretch of bad samples after a moment.
fn longest_bad(points: &[(i64, bool)], after_ms: i64) -> u32 {
    let (mut longest, mut run) = (0, 0);
    for (_, good) in points.iter().filter(|(at_ms, _)| *at_ms > after_ms) {
        run = if *good { 0 } else { run + 1 };
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> Watched {
        Watched { signal: Labels::of(&[("a", "b")]), expected: 0.1, bad_above: 0.5 }
    }

    fn run(values: &[f64], mitigated_ms: Option<i64>, control: Option<f64>) -> Progress {
        let watched = watched();
        let points: Vec<_> = values.iter().zip(1..).map(|(value, second)| (second * 1000, *value)).collect();
        let now_ms = points.last().map_or(0, |(at, _)| *at);
        verify(&[Observed { watched: &watched, points }], 0, mitigated_ms, now_ms, control, &Config::default())
    }

    #[test]
    fn doing_nothing_fails() {
        assert_eq!(run(&[0.9; 100], None, Some(0.0)), Progress::Waiting(0));
        assert_eq!(run(&[0.9; 121], None, Some(0.0)), Progress::Failed);
    }

    #[test]
    fn twenty_good_samples_then_the_hold() {
        let mut values = vec![0.9; 10];
        values.extend([0.1; 19]);
        assert_eq!(run(&values, None, Some(0.0)), Progress::Waiting(19));
        values.push(0.1);
        assert_eq!(run(&values, None, Some(0.0)), Progress::Good(30_000));
        values.extend([0.1; 89]);
        assert_eq!(run(&values, Some(30_000), Some(0.0)), Progress::Waiting(20));
        values.push(0.1);
        assert_eq!(run(&values, Some(30_000), Some(0.0)), Progress::Held);
        assert_eq!(run(&values, Some(30_000), None), Progress::Waiting(20), "no control: the hold is doubled");
    }

    #[test]
    fn a_relapse_in_the_hold_fails() {
        let mut values = vec![0.1; 40];
        values.extend([0.9; 5]);
        assert_eq!(run(&values, Some(20_000), Some(0.0)), Progress::Failed);
    }

    #[test]
    fn what_got_better_everywhere_is_not_our_doing() {
        assert_eq!(run(&[0.1; 20], None, Some(0.9)), Progress::NotAttributable);
    }

    #[test]
    fn a_signal_that_fell_silent_is_not_good() {
        let (loud, silent) = (watched(), watched());
        let points: Vec<_> = (1..=60).map(|second| (second * 1000, 0.1)).collect();
        let observed = [Observed { watched: &loud, points }, Observed { watched: &silent, points: vec![] }];
        assert_eq!(verify(&observed, 0, None, 60_000, Some(0.0), &Config::default()), Progress::Waiting(0));
    }
}
