//! Verifies from telemetry whether an action helped, compared with a control.
//!
//! Each signal is judged by its own points and interval, so that one reported once a minute is not judged by fewer
//! points than one reported every second. Silence is neither good nor bad: without evidence the result is
//! [`VerificationProgress::Inconclusive`], which neither resolves an incident nor undoes an action.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;

use crate::Config;

/// Interval assumed for a signal of which none is known, in ms.
const MIN_INTERVAL_MS: i64 = 1000;
/// A signal without a point for this many intervals has vanished.
const VANISHED_INTERVALS: i64 = 4;
/// A signal without a point for less than this has not vanished, in ms.
const MIN_VANISHED_MS: i64 = 60_000;
/// Verification lasts at least this many intervals of the slowest signal.
const TIMEOUT_INTERVALS: i64 = 10;
/// The hold lasts at least this many intervals of the slowest signal.
const HOLD_INTERVALS: i64 = 5;
/// Consecutive bad points without which a signal is not bad.
const MIN_BAD_POINTS: usize = 2;
/// Share of bad points of a control above which it was bad, too.
const MAX_BAD_CONTROL_SHARE: f64 = 0.5;
/// Time beyond its end after which a step that waits for telemetry ends by the wall clock, in ms.
const WALL_GRACE_MS: i64 = 60_000;

/// A signal that has to become good again. Persisted in the workflow: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedSignal {
    /// Labels of the signal.
    pub signal: Labels,
    /// Normal value before the incident.
    pub expected: f64,
    /// Values beyond this are bad.
    #[serde(alias = "bad_above")]
    pub limit: f64,
    /// Whether values below the limit are bad, instead of those above it.
    #[serde(default)]
    pub low_is_bad: bool,
    /// Interval between its points before the action, in ms; 0 if unknown.
    #[serde(default)]
    pub interval_ms: i64,
}

impl WatchedSignal {
    /// Returns whether a value is good.
    pub fn is_good(&self, value: f64) -> bool {
        if self.low_is_bad { value >= self.limit } else { value <= self.limit }
    }

    /// Returns what the signal is about, as far as its labels say.
    fn entity(&self) -> [&str; 5] {
        ["entity_kind", "cluster", "environment", "namespace", "service"]
            .map(|name| self.signal.get(name).unwrap_or_default())
    }

    /// Whether actions replace what the signal is about: instances and containers get other names.
    fn is_replaceable(&self) -> bool {
        matches!(self.signal.get("entity_kind"), Some("instance" | "container"))
    }
}

/// A watched signal with its history.
#[derive(Clone, Debug)]
pub struct ObservedSignal<'a> {
    /// The watched signal.
    pub watched: &'a WatchedSignal,
    /// Interval between its points now, in ms; 0 if unknown.
    pub interval_ms: i64,
    /// History as (time in ms, value), oldest first.
    pub points: Vec<(i64, f64)>,
}

/// What verification judges by.
#[derive(Clone, Copy, Debug)]
pub struct Verification<'a> {
    /// The watched signals.
    pub observed: &'a [ObservedSignal<'a>],
    /// Telemetry time of the action, in ms.
    pub executed_ms: i64,
    /// Telemetry time of [`VerificationProgress::Mitigated`], in ms, once that was returned.
    pub mitigated_ms: Option<i64>,
    /// Telemetry time now, in ms.
    pub now_ms: i64,
    /// Wall time since the action, since the mitigation, or since this process can see telemetry, whichever is least,
    /// in ms.
    pub waited_ms: i64,
    /// Share of bad points of the control's signals between the start of the incident and the action; `None` without
    /// a control, then the hold is doubled.
    pub control: Option<f64>,
    /// The same between the action and now: a control that became bad shows that something else is wrong, too.
    pub control_since: Option<f64>,
}

/// Progress of verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationProgress {
    /// More points are needed; the least number of good points of a signal so far.
    Pending(u32),
    /// Every signal was good for long enough; telemetry time, in ms.
    Mitigated(i64),
    /// The hold passed without a breach.
    HoldPassed,
    /// A signal was bad again within the hold, or bad at the timeout.
    Failed,
    /// The control was bad too, so neither an improvement nor its absence can be attributed to the action.
    NotAttributable,
    /// Telemetry does not show whether the action helped.
    Inconclusive,
}

/// Evaluates the telemetry since an action.
pub fn verify(verification: &Verification<'_>, config: &Config) -> VerificationProgress {
    let Verification { observed, executed_ms, now_ms, .. } = *verification;
    let since_ms = verification.mitigated_ms.unwrap_or(executed_ms);
    let signals: Vec<Judged<'_>> = observed.iter().map(|signal| Judged::new(signal, since_ms, now_ms)).collect();
    let slowest_ms = signals.iter().map(|signal| signal.interval_ms).max().unwrap_or(MIN_INTERVAL_MS);
    let progress = match verification.mitigated_ms {
        Some(mitigated_ms) => hold(verification, &signals, mitigated_ms, slowest_ms, config),
        None => improvement(verification, &signals, slowest_ms, config),
    };
    match progress {
        VerificationProgress::Failed if is_bad_control(verification.control_since) => {
            VerificationProgress::NotAttributable
        }
        progress => progress,
    }
}

/// Whether a control was bad for most of a time.
fn is_bad_control(bad_share: Option<f64>) -> bool {
    bad_share.is_some_and(|bad_share| bad_share > MAX_BAD_CONTROL_SHARE)
}

/// Judges whether every signal has become good.
fn improvement(
    verification: &Verification<'_>,
    signals: &[Judged<'_>],
    slowest_ms: i64,
    config: &Config,
) -> VerificationProgress {
    let Verification { executed_ms, now_ms, waited_ms, control, .. } = *verification;
    let required: Vec<&Judged<'_>> = signals.iter().filter(|signal| !signal.may_be_skipped(signals)).collect();
    if !required.is_empty() && required.iter().all(|signal| signal.is_good_for_long(config)) {
        if is_bad_control(control) {
            return VerificationProgress::NotAttributable;
        }
        return VerificationProgress::Mitigated(now_ms);
    }
    let timeout_ms = seconds_to_ms(config.verify_timeout).max(TIMEOUT_INTERVALS * slowest_ms);
    let elapsed_ms = now_ms.saturating_sub(executed_ms);
    if elapsed_ms > timeout_ms && required.iter().any(|signal| signal.is_bad_now()) {
        return VerificationProgress::Failed;
    }
    if elapsed_ms > 2 * timeout_ms {
        // Now good, now bad: the action did not end it.
        let is_mostly_bad = required.iter().any(|signal| signal.is_mostly_bad());
        return if is_mostly_bad { VerificationProgress::Failed } else { VerificationProgress::Inconclusive };
    }
    let is_over = if elapsed_ms <= timeout_ms {
        // The telemetry's clock stands still.
        waited_ms > timeout_ms + WALL_GRACE_MS.max(timeout_ms / 2)
    } else {
        required.iter().all(|signal| signal.is_vanished)
    };
    if is_over {
        return VerificationProgress::Inconclusive;
    }
    let good = required.iter().map(|signal| signal.good_points()).min().unwrap_or(0);
    VerificationProgress::Pending(u32::try_from(good).unwrap_or(u32::MAX))
}

/// Judges whether every signal stays good.
fn hold(
    verification: &Verification<'_>,
    signals: &[Judged<'_>],
    mitigated_ms: i64,
    slowest_ms: i64,
    config: &Config,
) -> VerificationProgress {
    let Verification { now_ms, waited_ms, control, .. } = *verification;
    let factor = if control.is_some() { 1 } else { 2 };
    let hold_ms = seconds_to_ms(config.hold).saturating_mul(factor).max(HOLD_INTERVALS * slowest_ms);
    if signals.iter().any(|signal| signal.has_breach(config)) {
        return VerificationProgress::Failed;
    }
    let elapsed_ms = now_ms.saturating_sub(mitigated_ms);
    let required: Vec<&Judged<'_>> = signals.iter().filter(|signal| !signal.may_be_skipped(signals)).collect();
    let is_seen = |signal: &&Judged<'_>| signal.last_ms() >= mitigated_ms + hold_ms - 2 * signal.interval_ms;
    if elapsed_ms >= hold_ms
        && !required.is_empty()
        && required.iter().all(|signal| is_seen(signal) && !signal.ends_bad())
    {
        return VerificationProgress::HoldPassed;
    }
    let is_over = match elapsed_ms < hold_ms {
        true => waited_ms > hold_ms + WALL_GRACE_MS.max(hold_ms / 2),
        false => elapsed_ms > 2 * hold_ms,
    };
    if is_over {
        return VerificationProgress::Inconclusive;
    }
    let good = required.iter().map(|signal| signal.good_points()).min().unwrap_or(0);
    VerificationProgress::Pending(u32::try_from(good).unwrap_or(u32::MAX))
}

/// The points of a signal since the action or since the mitigation.
struct Judged<'a> {
    watched: &'a WatchedSignal,
    interval_ms: i64,
    /// Time and whether good, oldest first; only points whose whole window is after the action.
    points: Vec<(i64, bool)>,
    /// Whether it has had no points for long.
    is_vanished: bool,
}

impl<'a> Judged<'a> {
    fn new(signal: &ObservedSignal<'a>, since_ms: i64, now_ms: i64) -> Self {
        let watched = signal.watched;
        let interval_ms = watched.interval_ms.max(signal.interval_ms).max(MIN_INTERVAL_MS);
        let after = signal.points.iter().filter(|(at_ms, _)| *at_ms >= since_ms.saturating_add(interval_ms));
        let points: Vec<_> = after.map(|(at_ms, value)| (*at_ms, watched.is_good(*value))).collect();
        let last_ms = signal.points.last().map_or(since_ms, |(at_ms, _)| *at_ms).max(since_ms);
        let vanished_after_ms = MIN_VANISHED_MS.max(VANISHED_INTERVALS * interval_ms);
        Self { watched, interval_ms, points, is_vanished: now_ms > last_ms.saturating_add(vanished_after_ms) }
    }

    /// Whether the signal has vanished and its entity is judged by another one: an action that replaces instances ends
    /// their signals.
    fn may_be_skipped(&self, all: &[Self]) -> bool {
        let is_judged = |other: &Self| !other.is_vanished && other.watched.signal != self.watched.signal;
        let is_same_entity = |other: &Self| other.watched.entity() == self.watched.entity();
        self.is_vanished
            && all.iter().any(|other| is_judged(other) && (self.watched.is_replaceable() || is_same_entity(other)))
    }

    fn good_points(&self) -> usize {
        self.points.iter().rev().take_while(|(_, good)| *good).count()
    }

    fn is_good_for_long(&self, config: &Config) -> bool {
        let good = self.good_points();
        let run = self.points.get(self.points.len() - good..).unwrap_or_default();
        !self.is_vanished
            && good >= config.good_points as usize
            && self.duration_ms(run) >= seconds_to_ms(config.good_seconds)
    }

    /// The time that consecutive points cover, in ms.
    fn duration_ms(&self, run: &[(i64, bool)]) -> i64 {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return 0 };
        last.0 - first.0 + self.interval_ms
    }

    /// Whether its newest points are bad.
    fn is_bad_now(&self) -> bool {
        let bad = self.points.iter().rev().take_while(|(_, good)| !*good).count();
        !self.is_vanished && bad >= MIN_BAD_POINTS
    }

    fn is_mostly_bad(&self) -> bool {
        let bad = self.points.iter().filter(|(_, good)| !*good).count();
        !self.is_vanished && bad >= MIN_BAD_POINTS && bad * 2 > self.points.len()
    }

    /// Whether it was bad for long enough at any time.
    fn has_breach(&self, config: &Config) -> bool {
        let runs = self.points.chunk_by(|(_, a), (_, b)| a == b).filter(|run| run.iter().all(|(_, good)| !*good));
        // A short hold must not end before a breach can be one.
        let breach_ms = seconds_to_ms(config.breach_seconds).min(seconds_to_ms(config.hold) / 2);
        runs.into_iter().any(|run| run.len() >= MIN_BAD_POINTS && self.duration_ms(run) >= breach_ms)
    }

    fn ends_bad(&self) -> bool {
        self.points.last().is_some_and(|(_, good)| !*good)
    }

    fn last_ms(&self) -> i64 {
        self.points.last().map_or(i64::MIN, |(at_ms, _)| *at_ms)
    }
}

fn seconds_to_ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}
