//! A rule: what it is, what it sees of a signal, what it says of a point, and its bad points up to now.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Finding, Severity, SignalId, SignalKind};
use wardroom_signals::{Direction, SignalUnit};

use super::counts::Counts;
use super::normal_range::Baseline;
use super::past::Past;
use super::summary::summary;
use crate::Config;
use crate::point::Point;

/// Id of the rule whose findings need a number of slow requests.
pub(super) const LATENCY: &str = "latency";
/// Good points that end a finding.
const GOOD_POINTS_TO_END: u32 = 2;
/// Good time that ends a finding, in ms.
const GOOD_MS_TO_END: i64 = 30_000;
/// Good points after which the next bad one may be the onset.
const GOOD_POINTS_OF_NEW_ONSET: u32 = 3;
/// Time of bad points, in ms, within which no action can have ended them.
const SHORT_MS: i64 = 90_000;
/// Evidence below which a finding may end.
const HALF_OF_EVIDENCE: f64 = 0.5;
/// Good points that end a finding whatever evidence there was.
const GOOD_POINTS_WITHOUT_EVIDENCE: u32 = 6;
/// Most evidence that is kept: what exceeds a finding's need delays its end only.
const MAX_EVIDENCE: f64 = 1.3;

/// One rule.
pub struct Rule {
    /// Identifies the rule in findings.
    pub id: &'static str,
    /// The kind of signal that it looks at.
    pub kind: SignalKind,
    /// What is bad, for documentation.
    pub about: &'static str,
    /// Whether a finding may open an incident; otherwise it is evidence that may only join one.
    pub opens: bool,
    /// Severity, unless the point says another.
    pub severity: Severity,
    /// Least time that the bad points cover, in seconds.
    pub seconds: u32,
    /// Least number of bad points.
    pub points: u32,
    /// Evidence that a good point takes away, as a share of what a finding needs.
    pub good: f64,
    pub(super) test: Test,
}

/// Judges one point.
pub(super) type Test = fn(&RuleInput<'_>) -> Verdict;

/// What a rule sees: one point, and the signal's past without it.
pub(super) struct RuleInput<'a> {
    pub(super) id: &'a SignalId,
    pub(super) unit: SignalUnit,
    pub(super) direction: Direction,
    pub(super) point: &'a Point,
    pub(super) past: &'a Past,
    pub(super) baseline: Baseline,
    /// Whether the past is long enough to compare with.
    pub(super) is_warm: bool,
    /// All points including this one, oldest first.
    pub(super) history: &'a VecDeque<(i64, f64)>,
    pub(super) counts: &'a Counts,
    pub(super) interval_ms: i64,
    /// The rule's bad points so far.
    pub(super) run: Option<&'a Run>,
    pub(super) config: &'a Config,
}

impl RuleInput<'_> {
    /// Returns the length of the point's window, in seconds.
    pub(super) fn window_seconds(&self) -> f64 {
        self.point.window_ms.max(1) as f64 / 1000.0
    }

    /// Returns failed and all requests of the bad points so far and of this one.
    pub(super) fn run_requests(&self) -> (f64, f64) {
        let now = self.point.requests.unwrap_or_default();
        let (failed, total) = self.run.map_or((0.0, 0.0), |run| run.requests);
        (failed + now.failed, total + now.total)
    }
}

/// What a rule says of one point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// The rule does not apply, or nothing is known.
    Unknown,
    /// The point is good.
    Good,
    /// The point is neither: it takes this share of the evidence away.
    Doubtful(f64),
    /// The point is bad.
    Bad(Sign),
}

/// A bad point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    /// Share of the evidence that a finding needs, 0..1.
    pub(super) weight: f64,
    /// The limit that the value crosses.
    pub(super) limit: f64,
    /// Normal value.
    pub(super) expected: f64,
    /// Whether values below the limit are bad.
    pub(super) low_is_bad: bool,
    /// Whether size and support are enough for a finding, besides the evidence.
    pub(super) is_ready: bool,
    /// Severity, if other than the rule's.
    pub(super) severity: Option<Severity>,
    /// Whether a finding may open an incident, if other than the rule says.
    pub(super) opens: Option<bool>,
    /// Onset, in ms, if it lies before the point: the first of several events that are counted.
    pub(super) since_ms: Option<i64>,
    /// Requests of the point that count as failed, if the point does not say.
    pub(super) failed: Option<f64>,
}

impl Sign {
    /// Creates a sign that values above a limit are bad.
    pub(super) const fn above(limit: f64, expected: f64, weight: f64) -> Self {
        Self {
            weight,
            limit,
            expected,
            low_is_bad: false,
            is_ready: true,
            severity: None,
            opens: None,
            since_ms: None,
            failed: None,
        }
    }

    /// Creates a sign that values below a limit are bad.
    pub(super) const fn below(limit: f64, expected: f64, weight: f64) -> Self {
        Self { low_is_bad: true, ..Self::above(limit, expected, weight) }
    }
}

/// Bad points of one rule, from the first one on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) rule: String,
    /// Time of the first bad point, in ms.
    pub(super) since_ms: i64,
    /// Begin of its window, in ms.
    from_ms: i64,
    /// Time of the newest bad point, in ms.
    pub(super) at_ms: i64,
    points: u32,
    evidence: f64,
    /// Good points since the newest bad one.
    good_points: u32,
    pub(super) limit: f64,
    pub(super) expected: f64,
    pub(super) low_is_bad: bool,
    pub(super) severity: Severity,
    pub(super) opens: bool,
    pub(super) is_confirmed: bool,
    /// Failed and all requests since the first bad point.
    pub(super) requests: (f64, f64),
}

impl Run {
    /// Starts a run with its first bad point.
    pub(super) fn start(rule: &Rule, sign: &Sign, point: &Point) -> Self {
        let mut run = Self {
            rule: rule.id.to_owned(),
            since_ms: sign.since_ms.unwrap_or(point.at_ms),
            from_ms: point.at_ms - point.window_ms,
            at_ms: point.at_ms,
            points: 0,
            evidence: 0.0,
            good_points: 0,
            limit: sign.limit,
            expected: sign.expected,
            low_is_bad: sign.low_is_bad,
            severity: rule.severity,
            opens: rule.opens,
            is_confirmed: false,
            requests: (0.0, 0.0),
        };
        run.add(rule, Verdict::Bad(*sign), point);
        run
    }

    /// Adds a point. Returns whether the run goes on.
    pub(super) fn add(&mut self, rule: &Rule, verdict: Verdict, point: &Point) -> bool {
        if !matches!(verdict, Verdict::Unknown)
            && let Some(requests) = point.requests
        {
            let failed = if let Verdict::Bad(sign) = &verdict { sign.failed } else { None };
            self.requests.0 += failed.unwrap_or(requests.failed);
            self.requests.1 += requests.total;
        }
        match verdict {
            Verdict::Unknown => true,
            Verdict::Good => self.add_good(rule.good, point),
            Verdict::Doubtful(evidence) => self.add_good(evidence, point),
            Verdict::Bad(sign) => {
                if !self.is_confirmed
                    && self.good_points >= GOOD_POINTS_OF_NEW_ONSET
                    && self.evidence < HALF_OF_EVIDENCE
                {
                    self.move_onset(&sign, point);
                }
                self.at_ms = point.at_ms;
                self.points = self.points.saturating_add(1);
                self.good_points = 0;
                self.evidence = (self.evidence + sign.weight).min(MAX_EVIDENCE);
                let is_long = point.at_ms - self.from_ms >= i64::from(rule.seconds) * 1000;
                self.is_confirmed |= is_long && self.points >= rule.points && self.evidence >= 1.0 && sign.is_ready;
                if !self.is_confirmed {
                    (self.limit, self.expected) = (sign.limit, sign.expected);
                }
                let severity = sign.severity.unwrap_or(rule.severity);
                let opens = sign.opens.unwrap_or(rule.opens);
                // What opens an incident is never for information only.
                let severity = if opens { severity.max(Severity::Warning) } else { severity };
                self.severity = if self.points == 1 { severity } else { self.severity.max(severity) };
                self.opens = if self.points == 1 { opens } else { self.opens || opens };
                true
            }
        }
    }

    /// Returns the finding of its newest bad point.
    pub(super) fn finding(&self, id: &SignalId, unit: SignalUnit, point: &Point, interval_ms: i64) -> Finding {
        let mut finding = Finding {
            signal: id.clone(),
            rule: self.rule.clone(),
            severity: self.severity,
            opens: self.opens,
            since_ms: self.since_ms,
            at_ms: point.at_ms,
            value: point.value,
            expected: self.expected,
            limit: self.limit,
            low_is_bad: self.low_is_bad,
            interval_ms,
            summary: String::new(),
        };
        finding.summary = summary(&finding, unit);
        finding
    }

    /// Takes this point for the first of the fault; what came before is evidence, but was followed by good points.
    fn move_onset(&mut self, sign: &Sign, point: &Point) {
        self.since_ms = sign.since_ms.unwrap_or(point.at_ms);
        self.from_ms = point.at_ms - point.window_ms;
        let requests = point.requests.unwrap_or_default();
        (self.points, self.requests) = (0, (sign.failed.unwrap_or(requests.failed), requests.total));
    }

    /// Returns whether its bad points cover so little time that they were noise, or over before anything could be done.
    pub(super) fn is_short(&self, interval_ms: i64) -> bool {
        self.at_ms - self.since_ms <= SHORT_MS.max(2 * interval_ms)
    }

    /// Returns whether there is evidence enough, but too few slow requests have been seen so far: its points must not
    /// become normal meanwhile.
    pub(super) fn is_counting(&self) -> bool {
        self.rule == LATENCY && !self.is_confirmed && self.evidence >= 1.0
    }

    fn add_good(&mut self, evidence: f64, point: &Point) -> bool {
        self.good_points += 1;
        self.evidence -= evidence;
        if self.is_confirmed {
            let is_over = self.good_points >= GOOD_POINTS_TO_END && point.at_ms - self.at_ms >= GOOD_MS_TO_END;
            // Rare failures leave windows without any: those take little evidence away.
            !(is_over && (self.evidence <= HALF_OF_EVIDENCE || self.good_points >= GOOD_POINTS_WITHOUT_EVIDENCE))
        } else {
            self.evidence > 0.0
        }
    }
}
