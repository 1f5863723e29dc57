//! Verifies from telemetry whether an action helped, compared with a control.

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;

use crate::Config;

/// A signal that has to become good again. Persisted in the workflow: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedSignal {
    /// Labels of the signal.
    pub signal: Labels,
    /// Normal value before the incident.
    pub expected: f64,
    /// Values above this are bad.
    pub bad_above: f64,
}

/// A watched signal with its history.
#[derive(Clone, Debug)]
pub struct ObservedSignal<'a> {
    /// The watched signal.
    pub watched: &'a WatchedSignal,
    /// History as (time in ms, value), oldest first.
    pub points: Vec<(i64, f64)>,
}

/// Progress of verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationProgress {
    /// More samples are needed; the number of good samples so far.
    Pending(u32),
    /// Enough good samples of every signal; the time when they were complete, in ms.
    Mitigated(i64),
    /// The hold passed without a breach.
    HoldPassed,
    /// A signal was bad again within the hold, or not good before the timeout.
    Failed,
    /// The control was bad too, so an improvement cannot be attributed to the action.
    NotAttributable,
}

/// Evaluates the telemetry since an action.
///
/// `executed_ms` and `now_ms` are telemetry time; `mitigated_ms` is set once [`VerificationProgress::Mitigated`] was
/// returned. `control` is the share of bad points of the control's signals between the start of the incident and the
/// action, or `None` without a control (then the hold is doubled).
pub fn verify(
    observed: &[ObservedSignal<'_>],
    executed_ms: i64,
    mitigated_ms: Option<i64>,
    now_ms: i64,
    control: Option<f64>,
    config: &Config,
) -> VerificationProgress {
    let since: Vec<Vec<(i64, bool)>> = observed
        .iter()
        .map(|observed| {
            let after = observed.points.iter().filter(|(at_ms, _)| *at_ms > executed_ms);
            after.map(|(at_ms, value)| (*at_ms, *value <= observed.watched.bad_above)).collect()
        })
        .collect();
    let hold_ms = config.hold as i64 * 1000 * if control.is_some() { 1 } else { 2 };
    if let Some(mitigated_ms) = mitigated_ms {
        let has_breach = since.iter().any(|points| longest_bad_run(points, mitigated_ms) >= config.breach_samples);
        return match now_ms >= mitigated_ms + hold_ms {
            _ if has_breach => VerificationProgress::Failed,
            true => VerificationProgress::HoldPassed,
            false => VerificationProgress::Pending(config.good_samples),
        };
    }
    let good = since.iter().map(|points| good_samples_since_last_bad(points)).min().unwrap_or(0);
    if good >= config.good_samples {
        if control.is_some_and(|bad_share| bad_share > 0.5) {
            return VerificationProgress::NotAttributable;
        }
        return VerificationProgress::Mitigated(now_ms);
    }
    if now_ms > executed_ms + config.verify_timeout as i64 * 1000 {
        VerificationProgress::Failed
    } else {
        VerificationProgress::Pending(good)
    }
}

/// Number of good samples since the last bad one.
fn good_samples_since_last_bad(points: &[(i64, bool)]) -> u32 {
    points.iter().rev().take_while(|(_, good)| *good).count() as u32
}

/// Longest run of consecutive bad samples after a time.
fn longest_bad_run(points: &[(i64, bool)], after_ms: i64) -> u32 {
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

    fn watched() -> WatchedSignal {
        WatchedSignal { signal: Labels::of(&[("a", "b")]), expected: 0.1, bad_above: 0.5 }
    }

    fn run(values: &[f64], mitigated_ms: Option<i64>, control: Option<f64>) -> VerificationProgress {
        let watched = watched();
        let points: Vec<_> = values.iter().zip(1..).map(|(value, second)| (second * 1000, *value)).collect();
        let now_ms = points.last().map_or(0, |(at, _)| *at);
        verify(&[ObservedSignal { watched: &watched, points }], 0, mitigated_ms, now_ms, control, &Config::default())
    }

    #[test]
    fn fails_without_improvement() {
        assert_eq!(run(&[0.9; 100], None, Some(0.0)), VerificationProgress::Pending(0));
        assert_eq!(run(&[0.9; 121], None, Some(0.0)), VerificationProgress::Failed);
    }

    #[test]
    fn passes_after_good_samples_and_the_hold() {
        let mut values = vec![0.9; 10];
        values.extend([0.1; 19]);
        assert_eq!(run(&values, None, Some(0.0)), VerificationProgress::Pending(19));
        values.push(0.1);
        assert_eq!(run(&values, None, Some(0.0)), VerificationProgress::Mitigated(30_000));
        values.extend([0.1; 89]);
        assert_eq!(run(&values, Some(30_000), Some(0.0)), VerificationProgress::Pending(20));
        values.push(0.1);
        assert_eq!(run(&values, Some(30_000), Some(0.0)), VerificationProgress::HoldPassed);
        assert_eq!(
            run(&values, Some(30_000), None),
            VerificationProgress::Pending(20),
            "the hold is doubled without a control"
        );
    }

    #[test]
    fn fails_on_a_breach_within_the_hold() {
        let mut values = vec![0.1; 40];
        values.extend([0.9; 5]);
        assert_eq!(run(&values, Some(20_000), Some(0.0)), VerificationProgress::Failed);
    }

    #[test]
    fn is_not_attributable_if_the_control_was_bad() {
        assert_eq!(run(&[0.1; 20], None, Some(0.9)), VerificationProgress::NotAttributable);
    }

    #[test]
    fn a_signal_without_samples_is_not_good() {
        let (loud, silent) = (watched(), watched());
        let points: Vec<_> = (1..=60).map(|second| (second * 1000, 0.1)).collect();
        let observed = [ObservedSignal { watched: &loud, points }, ObservedSignal { watched: &silent, points: vec![] }];
        assert_eq!(verify(&observed, 0, None, 60_000, Some(0.0), &Config::default()), VerificationProgress::Pending(0));
    }
}
