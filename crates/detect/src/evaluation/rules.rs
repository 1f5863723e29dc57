//! The rules that a signal is judged by: what opens an incident, and what is evidence only.
//!
//! A rule looks at one point against the signal's own past and says how strongly it speaks for a fault, as a share of
//! what is needed. A finding needs all of it, from a least number of points that share no samples and over a least
//! time, so that no single point is ever enough where a rule says so. Every number that users may want to change is in
//! [`Config`](crate::Config); the others guard against noise.

use wardroom_domain::{Severity, SignalId, SignalKind};
use wardroom_signals::{Direction, SignalUnit};

use super::counts::Counts;
use super::past::{Baseline, Past};
use super::run::Run;
use super::{levels, requests, resources, states};
use crate::Config;
use crate::point::Point;

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
    pub(super) history: &'a std::collections::VecDeque<(i64, f64)>,
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
}

impl Sign {
    /// Creates a sign that values above a limit are bad.
    pub(super) const fn above(limit: f64, expected: f64, weight: f64) -> Self {
        Self { weight, limit, expected, low_is_bad: false, is_ready: true, severity: None, opens: None, since_ms: None }
    }

    /// Creates a sign that values below a limit are bad.
    pub(super) const fn below(limit: f64, expected: f64, weight: f64) -> Self {
        Self { low_is_bad: true, ..Self::above(limit, expected, weight) }
    }
}

/// All rules. The order is that of findings of one point.
pub const RULES: &[Rule] = &[
    Rule {
        id: "availability",
        kind: SignalKind::Availability,
        about: "fewer members are up than normal; without a past, fewer than all. One failed scrape is none",
        opens: true,
        severity: Severity::Critical,
        seconds: 40,
        points: 2,
        good: 1.0,
        test: states::availability,
    },
    Rule {
        id: "exporter-down",
        kind: SignalKind::Availability,
        about: "an exporter cannot be scraped: what it watches is unknown, not broken",
        opens: true,
        severity: Severity::Warning,
        seconds: 40,
        points: 2,
        good: 1.0,
        test: states::exporter,
    },
    Rule {
        id: "flapping",
        kind: SignalKind::Availability,
        about: "went down again and again within a quarter of an hour",
        opens: true,
        severity: Severity::High,
        seconds: 0,
        points: 1,
        good: 1.0,
        test: states::flapping,
    },
    Rule {
        id: "errors",
        kind: SignalKind::Errors,
        about: "more requests fail than the own past explains (sequential likelihood ratio test), above a floor",
        opens: true,
        severity: Severity::High,
        seconds: 20,
        points: 2,
        good: 0.0,
        test: requests::errors,
    },
    Rule {
        id: "latency",
        kind: SignalKind::Latency,
        about: "requests take at least half as long again as normal, and longer than the own spread explains",
        opens: true,
        severity: Severity::Warning,
        seconds: 30,
        points: 2,
        good: 0.3,
        test: requests::latency,
    },
    Rule {
        id: "traffic-lost",
        kind: SignalKind::Traffic,
        about: "steady traffic stopped",
        opens: true,
        severity: Severity::High,
        seconds: 75,
        points: 3,
        good: 1.0,
        test: requests::traffic_lost,
    },
    Rule {
        id: "traffic-shift",
        kind: SignalKind::Traffic,
        about: "traffic doubled or halved",
        opens: false,
        severity: Severity::Info,
        seconds: 30,
        points: 3,
        good: 0.4,
        test: requests::traffic_shift,
    },
    Rule {
        id: "saturation",
        kind: SignalKind::Saturation,
        about: "a resource is near its limit and well above its own past; without a past, all but exhausted",
        opens: true,
        severity: Severity::Warning,
        seconds: 25,
        points: 2,
        good: 0.5,
        test: resources::saturation,
    },
    Rule {
        id: "saturation-forecast",
        kind: SignalKind::Saturation,
        about: "a resource grows steadily beyond its past and will be exhausted soon",
        opens: true,
        severity: Severity::Warning,
        seconds: 25,
        points: 2,
        good: 0.5,
        test: resources::forecast,
    },
    Rule {
        id: "saturation-shift",
        kind: SignalKind::Saturation,
        about: "use of a resource rose far above its own past",
        opens: false,
        severity: Severity::Info,
        seconds: 30,
        points: 3,
        good: 0.4,
        test: resources::shift,
    },
    Rule {
        id: "queue-growing",
        kind: SignalKind::Queue,
        about: "a queue grows steadily, far beyond its own past: less is taken out than put in",
        opens: true,
        severity: Severity::High,
        seconds: 50,
        points: 3,
        good: 0.5,
        test: resources::queue,
    },
    Rule {
        id: "crash-loop",
        kind: SignalKind::Restarts,
        about: "started again several times within a quarter of an hour",
        opens: true,
        severity: Severity::High,
        seconds: 0,
        points: 1,
        good: 1.0,
        test: states::crash_loop,
    },
    Rule {
        id: "oom-kill",
        kind: SignalKind::Restarts,
        about: "killed because its memory limit was reached",
        opens: true,
        severity: Severity::High,
        seconds: 0,
        points: 1,
        good: 1.0,
        test: states::oom_kill,
    },
    Rule {
        id: "freshness",
        kind: SignalKind::Freshness,
        about: "the newest success is several times as old as it ever became",
        opens: true,
        severity: Severity::High,
        seconds: 0,
        points: 2,
        good: 1.0,
        test: states::freshness,
    },
    Rule {
        id: "expiry",
        kind: SignalKind::Expiry,
        about: "something expires within days",
        opens: true,
        severity: Severity::High,
        seconds: 0,
        points: 2,
        good: 1.0,
        test: states::expiry,
    },
    Rule {
        id: "error-log-burst",
        kind: SignalKind::Logs,
        about: "many times as many error lines as normal",
        opens: true,
        severity: Severity::Warning,
        seconds: 30,
        points: 3,
        good: 0.3,
        test: levels::error_logs,
    },
    Rule {
        id: "unusual-level",
        kind: SignalKind::Other,
        about: "a sustained, large shift of a measurement that no convention knows",
        opens: false,
        severity: Severity::Info,
        seconds: 60,
        points: 4,
        good: 0.4,
        test: levels::unusual,
    },
];
