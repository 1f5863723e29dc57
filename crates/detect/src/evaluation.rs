//! From points to findings: how a signal is judged.
//!
//! ```text
//! Point ─► z-score, thresholds ─────────► SignalShift (list of anomalies; one for each excursion)
//!   │
//!   ├──► rules of its kind ─► Run (evidence, duration, independent points) ─► Finding
//!   │       ▲
//!   └──► Past (good points only: median, spread, usual extremes, daily pattern)
//! ```
//!
//! Problem: a fault must be found within a minute at any scrape interval, and a healthy day must give nothing. Model:
//! every point speaks for or against each rule of the signal's kind, as a share of the evidence that the rule needs;
//! strong points weigh more, so that few are enough. A finding needs the evidence, a least number of points that share
//! no samples, and a least time of telemetry. While a rule has bad points, the past takes none; points of an excursion
//! that came to nothing are added later, so that the spread is learned from them, too.
//!
//! Guarantees: telemetry's time only; a point without members is no verdict, neither good nor bad; all state is bounded
//! and is a function of the points.

mod conditions;
mod counts;
mod levels;
mod normal_range;
mod past;
mod requests;
mod resources;
mod rule;
pub mod rules;
mod season;
mod shifts;
mod states;
mod summary;
#[cfg(test)]
mod tests;
mod trend;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Finding, Severity, SignalId, SignalKind};
use wardroom_signals::{Direction, SignalUnit};

use self::counts::Counts;
use self::past::{Past, PastPoint};
use self::rule::{Rule, RuleInput, Run, Verdict};
use self::rules::RULES;
use self::shifts::Shifts;
use crate::Config;
use crate::point::Point;

pub use self::normal_range::Baseline;
pub use self::shifts::SignalShift;

/// Least number of good points to compare with.
const MIN_PAST_POINTS: u32 = 6;
/// Newest good points that wait before they join the past: the first points of a fault may still look good.
const WAITING_POINTS: usize = 2;
/// Points that wait while it is not decided whether they are a fault: what is never decided must be learned.
const UNDECIDED_POINTS: usize = 8;
/// Points that wait while a rule holds: those of a fault of seconds join the past after all.
const MAX_WAITING_POINTS: usize = 64;
/// Points kept for charts, verification and diagnosis are at most this old, in ms.
const MAX_HISTORY_MS: i64 = 24 * 3600 * 1000;
/// Evidence that opens nothing becomes the new normal after this time, in ms.
const RELEARN_EVIDENCE_MS: i64 = 3600 * 1000;
/// An undecided run is forgotten after this many intervals without points.
const MAX_SILENT_INTERVALS: i64 = 20;
/// Weight of the newest distance of two points in the interval, as 1 / this.
const INTERVAL_SMOOTHING: i64 = 4;

/// What a point says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// A shift that the point begins or worsens.
    pub shift: Option<SignalShift>,
    /// The rules that hold and that this point supports.
    pub findings: Vec<Finding>,
}

/// A rule that holds, or may hold, over a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Bad {
    /// Id of the rule.
    pub rule: String,
    /// Time of the first bad point, in ms.
    pub since_ms: i64,
    /// Time of the newest bad point, in ms.
    pub at_ms: i64,
    /// The limit that is crossed.
    pub limit: f64,
    /// Whether values below the limit are bad.
    pub low_is_bad: bool,
    /// Normal value before the onset.
    pub expected: f64,
    /// Severity.
    pub severity: Severity,
    /// Whether it may open an incident.
    pub opens: bool,
}

/// The state of one signal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Signal {
    /// Newest points: telemetry's time (ms) and value, oldest first.
    pub history: VecDeque<(i64, f64)>,
    past: Past,
    waiting: VecDeque<PastPoint>,
    runs: Vec<Run>,
    counts: Counts,
    shifts: Shifts,
    interval_ms: i64,
}

impl Signal {
    /// Adds a point and judges it. Points that are not newer than the one before are ignored.
    pub fn observe(
        &mut self,
        id: &SignalId,
        unit: SignalUnit,
        direction: Direction,
        point: &Point,
        config: &Config,
    ) -> Judgement {
        let newest_ms = self.history.back().map(|(at_ms, _)| *at_ms);
        if !point.value.is_finite() || point.members == 0 || newest_ms.is_some_and(|at_ms| at_ms >= point.at_ms) {
            return Judgement::default();
        }
        self.update_interval(newest_ms, point);
        self.keep(point, config);
        let shift = self.shifts.observe(id, unit, point, config);
        self.count_events(id, point, config);
        let findings = self.evaluate(id, unit, direction, point, config);
        self.learn(point, config);
        self.past.add_to_season(point.at_ms, point.value);
        Judgement { shift, findings }
    }

    /// Says, before its first point, that what the signal shows at first is news: there was nothing to show before.
    pub(crate) const fn expect_events(&mut self) {
        self.counts.expect_events();
    }

    fn update_interval(&mut self, newest_ms: Option<i64>, point: &Point) {
        let Some(newest_ms) = newest_ms else {
            self.interval_ms = point.window_ms.max(1);
            return;
        };
        let distance = (point.at_ms - newest_ms).min(INTERVAL_SMOOTHING * self.interval_ms.max(1));
        self.interval_ms += (distance - self.interval_ms) / INTERVAL_SMOOTHING;
        if point.at_ms - newest_ms > MAX_SILENT_INTERVALS * self.interval_ms.max(1) {
            self.runs.retain(|run| run.is_confirmed);
        }
    }

    fn keep(&mut self, point: &Point, config: &Config) {
        self.history.push_back((point.at_ms, point.value));
        let oldest_ms = point.at_ms - MAX_HISTORY_MS;
        while self.history.len() > config.history || self.history.front().is_some_and(|(at, _)| *at < oldest_ms) {
            self.history.pop_front();
        }
    }

    /// Counts restarts, times that something went down, and successes.
    fn count_events(&mut self, id: &SignalId, point: &Point, config: &Config) {
        match id.kind {
            SignalKind::Restarts => {
                self.counts.advance(point.at_ms);
                let is_state = states::is_oom_state(id);
                let count = if is_state { self.counts.rise(self.history.iter().rev()) } else { point.value };
                self.counts.add(point.at_ms, count, self.interval_ms);
            }
            SignalKind::Availability => {
                self.counts.advance(point.at_ms);
                let baseline = self.past.baseline(point.at_ms);
                let normal = states::normally_up(self.is_warm(config), &baseline, &self.counts, &self.past);
                let is_down = point.value < states::down_below(normal, point);
                self.counts.add_state(point.at_ms, is_down, point.value > 0.0, self.interval_ms);
            }
            SignalKind::Freshness => self.counts.add_age(point.value),
            _ => {}
        }
    }

    fn is_warm(&self, config: &Config) -> bool {
        self.past.count() >= MIN_PAST_POINTS && self.past.age_ms() >= i64::from(config.cold_start_seconds) * 1000
    }

    fn evaluate(
        &mut self,
        id: &SignalId,
        unit: SignalUnit,
        direction: Direction,
        point: &Point,
        config: &Config,
    ) -> Vec<Finding> {
        let (baseline, is_warm) = (self.past.baseline(point.at_ms), self.is_warm(config));
        let mut findings = Vec::new();
        for rule in RULES.iter().filter(|rule| rule.kind == id.kind) {
            let index = self.runs.iter().position(|run| run.rule == rule.id);
            let input = RuleInput {
                id,
                unit,
                direction,
                point,
                past: &self.past,
                baseline,
                is_warm,
                history: &self.history,
                counts: &self.counts,
                interval_ms: self.interval_ms,
                run: index.map(|index| &self.runs[index]),
                config,
            };
            let verdict = (rule.test)(&input);
            let interval_ms = self.interval_ms;
            if let Some(run) = self.apply(rule, index, verdict, point) {
                findings.push(run.finding(id, unit, point, interval_ms));
            }
        }
        findings
    }

    /// Adds a verdict to the run of its rule; returns the run if the rule holds and the point is bad.
    fn apply(&mut self, rule: &Rule, index: Option<usize>, verdict: Verdict, point: &Point) -> Option<&Run> {
        let index = match (index, verdict) {
            (Some(index), _) => {
                if !self.runs[index].add(rule, verdict, point) {
                    self.runs.remove(index);
                    return None;
                }
                index
            }
            (None, Verdict::Bad(sign)) => {
                self.runs.push(Run::start(rule, &sign, point));
                self.runs.len() - 1
            }
            (None, _) => return None,
        };
        Some(&self.runs[index]).filter(|run| run.is_confirmed && matches!(verdict, Verdict::Bad(_)))
    }

    /// Adds good points to the past; forgets those of a fault; takes a new level that lasts for the new normal.
    fn learn(&mut self, point: &Point, config: &Config) {
        let relearn_ms = |run: &Run| match run.opens {
            true => i64::from(config.relearn_seconds) * 1000,
            false => RELEARN_EVIDENCE_MS,
        };
        if let Some(old) = self.runs.iter().find(|run| run.is_confirmed && run.at_ms - run.since_ms >= relearn_ms(run))
        {
            let since_ms = old.since_ms;
            self.past.restart();
            for (at_ms, value) in self.history.iter().filter(|(at_ms, _)| *at_ms >= since_ms) {
                self.past.add(PastPoint { at_ms: *at_ms, value: *value, requests: None });
            }
            self.runs.clear();
            self.waiting.clear();
            return;
        }
        if self.runs.iter().any(|run| run.is_confirmed && !run.is_short(self.interval_ms)) {
            self.waiting.clear();
            return;
        }
        let is_confirmed = self.runs.iter().any(|run| run.is_confirmed || run.is_counting());
        let requests = point.requests.map(|requests| (requests.failed, requests.total));
        self.waiting.push_back(PastPoint { at_ms: point.at_ms, value: point.value, requests });
        let most = match (self.runs.is_empty(), is_confirmed) {
            (true, _) => WAITING_POINTS,
            (false, false) => UNDECIDED_POINTS,
            (false, true) => MAX_WAITING_POINTS,
        };
        while self.waiting.len() > most {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.past.add(oldest);
        }
    }

    /// Returns what is normal for the signal, without the points of a fault in progress.
    pub fn baseline(&self) -> Baseline {
        self.past.baseline(self.history.back().map_or(0, |(at_ms, _)| *at_ms))
    }

    /// Returns the worst rule that holds; `None` while the signal is good or undecided.
    pub fn bad(&self) -> Option<Bad> {
        self.worst(|run| run.is_confirmed)
    }

    /// Returns the worst rule that holds or has bad points, decided or not.
    pub fn suspected(&self) -> Option<Bad> {
        self.worst(|_| true)
    }

    fn worst(&self, includes: impl Fn(&Run) -> bool) -> Option<Bad> {
        let runs = self.runs.iter().filter(|run| includes(run));
        // The first of equals: rules are in order.
        let worst = runs.reduce(|worst, run| {
            let rank = |run: &Run| (run.is_confirmed, run.opens, run.severity);
            if rank(run) > rank(worst) { run } else { worst }
        })?;
        Some(Bad {
            rule: worst.rule.clone(),
            since_ms: worst.since_ms,
            at_ms: worst.at_ms,
            limit: worst.limit,
            low_is_bad: worst.low_is_bad,
            expected: worst.expected,
            severity: worst.severity,
            opens: worst.opens,
        })
    }

    /// Returns the usual time between two points, in ms; 0 before the first point.
    pub const fn interval_ms(&self) -> i64 {
        self.interval_ms
    }
}
