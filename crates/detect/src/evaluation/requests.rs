//! Rules over requests: errors, latency and traffic.

use wardroom_domain::Severity;
use wardroom_signals::SignalUnit;

use super::rule::{RuleInput, Sign, Verdict};

/// Log-likelihood ratio that a finding needs. A healthy signal reaches it by chance about once in e^16 points.
const ERRORS_EVIDENCE: f64 = 16.0;
/// Failures that may have been missed in a past with none, and deviations of their number: a signal that fails now and
/// then may have shown none so far.
const UNSEEN_FAILURES: f64 = 1.5;
const UNSEEN_DEVIATIONS: f64 = 1.3;
/// Largest share that is assumed because of a short past.
const MAX_ASSUMED: f64 = 0.05;
/// Requests of the past that are needed to compare with.
const MIN_PAST_REQUESTS: f64 = 20.0;
/// Smallest share of failing requests that is taken for normal.
const MIN_NORMAL_ERRORS: f64 = 0.001;
/// Normal failures per second of a counter without requests.
const MIN_NORMAL_FAILURES_PER_SECOND: f64 = 0.005;
/// Failed requests that a finding needs.
const MIN_FAILED: f64 = 5.0;
/// Failures that a finding needs where the requests are unknown.
const MIN_FAILURES: f64 = 8.0;
/// Smallest rate of failures that is an effect where the requests are unknown, per second.
const MIN_FAILURES_PER_SECOND: f64 = 0.05;
/// Weights of one point: of a moderate and of a strong effect.
const MODERATE_WEIGHT: f64 = 0.34;
const STRONG_WEIGHT: f64 = 0.5;
/// Window from which one point of a moderate effect may weigh more: it stands for several short ones, in seconds.
const LONG_WINDOW_SECONDS: f64 = 20.0;
/// Smallest rise that is an effect where most requests fail anyway.
const MIN_ERRORS_RISE: f64 = 0.1;
/// Largest share of failures that a signal may be used to.
const MAX_HABIT: f64 = 0.1;
/// Share of failing requests that is a strong effect, and that makes a finding critical.
const STRONG_ERRORS: f64 = 0.2;
const CRITICAL_ERRORS: f64 = 0.5;

/// Errors: a sequential test of the own past against clearly more.
pub(super) fn errors(input: &RuleInput<'_>) -> Verdict {
    match input.point.requests {
        Some(requests) if input.unit != SignalUnit::PerSecond => error_ratio(input, requests.failed, requests.total),
        _ => failures_per_second(input),
    }
}

fn error_ratio(input: &RuleInput<'_>, failed: f64, total: f64) -> Verdict {
    let (past_failed, past_total) = input.past.requests();
    if !input.is_warm || past_total < MIN_PAST_REQUESTS || total <= 0.0 {
        return Verdict::Unknown;
    }
    let mean = past_failed / past_total;
    let upper = (past_failed + UNSEEN_FAILURES + UNSEEN_DEVIATIONS * (past_failed + 0.5).sqrt()) / past_total;
    let normal =
        mean.max(upper.min(MAX_ASSUMED.max(mean * 2.0))).max(habit(input, mean)).clamp(MIN_NORMAL_ERRORS, 0.99);
    let much = (normal * (1.0 + 4.0 * (1.0 - normal).powi(4))).max(normal + 0.01).min(0.995);
    if normal > 0.5 && much - normal < MIN_ERRORS_RISE {
        return Verdict::Good;
    }
    let limit = input.config.error_ratio.max(f64::midpoint(normal, much)).min(0.99);
    let evidence = failed * (much / normal).ln() + (total - failed).max(0.0) * ((1.0 - much) / (1.0 - normal)).ln();
    // Failures that come in bursts say less.
    let weight = evidence / (ERRORS_EVIDENCE * input.past.dispersion());
    if weight <= 0.0 {
        return Verdict::Doubtful(-evidence / ERRORS_EVIDENCE);
    }
    let ratio = failed / total;
    let (run_failed, run_total) = input.run_requests();
    let run_ratio = run_failed / run_total.max(1.0);
    let severity = if run_ratio >= CRITICAL_ERRORS { Severity::Critical } else { Severity::High };
    Verdict::Bad(Sign {
        is_ready: run_failed >= MIN_FAILED && run_ratio >= limit,
        severity: Some(severity),
        ..Sign::above(limit, mean, weight.min(cap(input, ratio >= STRONG_ERRORS)))
    })
}

/// Returns the share of failures that the signal is used to: half of what two points in a row reach now and then,
/// unless chance explains that with as few requests as it has.
fn habit(input: &RuleInput<'_>, mean: f64) -> f64 {
    let requests = input.past.usual_requests().max(1.0);
    let chance = mean + 4.0 * (mean / requests).sqrt() + 2.0 / requests;
    let high = input.baseline.high;
    if high > chance { (high / 2.0).min(MAX_HABIT) } else { 0.0 }
}

/// Returns the most that one point may weigh.
fn cap(input: &RuleInput<'_>, is_strong: bool) -> f64 {
    if is_strong || input.window_seconds() >= LONG_WINDOW_SECONDS { STRONG_WEIGHT } else { MODERATE_WEIGHT }
}

fn failures_per_second(input: &RuleInput<'_>) -> Verdict {
    if !input.is_warm {
        return Verdict::Unknown;
    }
    let (seconds, rate) = (input.window_seconds(), input.point.value.max(0.0));
    let normal = input.baseline.center.max(input.baseline.high / 2.0).max(MIN_NORMAL_FAILURES_PER_SECOND);
    let much = (normal * 4.0).max(MIN_FAILURES_PER_SECOND);
    let evidence = rate * seconds * (much / normal).ln() - (much - normal) * seconds;
    let weight = evidence / ERRORS_EVIDENCE;
    if weight <= 0.0 {
        return Verdict::Doubtful(-weight);
    }
    let limit = f64::midpoint(normal, much);
    let run_seconds = input.run.map_or(0.0, |run| (input.point.at_ms - run.since_ms) as f64 / 1000.0) + seconds;
    Verdict::Bad(Sign {
        is_ready: rate * run_seconds >= MIN_FAILURES,
        severity: Some(Severity::Warning),
        ..Sign::above(limit, input.baseline.center, weight.min(cap(input, false)))
    })
}

/// Smallest rise of a latency that is an effect, as a multiple of normal.
const SLOWER: f64 = 1.5;
/// What a past of minutes must be exceeded by in addition, and the age from which it must not, in ms: it says nothing
/// of slow wander.
const SLOWER_WHILE_YOUNG: f64 = 0.4;
const OLD_PAST_MS: f64 = 45.0 * 60.0 * 1000.0;
/// Smallest spread of the logarithm of a latency.
const MIN_LOG_SPREAD: f64 = 0.1;
/// Distance from normal, in spreads, from which a point speaks for a fault, and the range over which it gains weight.
const MIN_DISTANCE: f64 = 2.0;
const DISTANCE_RANGE: f64 = 10.0;
/// Requests that the slow points of a finding must have, all together, and how many of them must have been slow: the
/// slowest one in a hundred of few requests is another one in every window.
const MIN_REQUESTS: f64 = 12.0;
const MIN_SLOW_REQUESTS: f64 = 10.0;
/// Requests of a window below which its latency weighs less.
const MANY_REQUESTS: f64 = 150.0;
/// A latency this many times normal and this long in seconds is of high severity.
const MUCH_SLOWER: f64 = 3.0;
const LONG_SECONDS: f64 = 0.5;

/// Latency against the own past, on a logarithmic scale.
pub(super) fn latency(input: &RuleInput<'_>) -> Verdict {
    let (value, normal) = (input.point.value, input.baseline.center);
    if !input.is_warm || normal <= 0.0 || value <= 0.0 {
        return Verdict::Unknown;
    }
    let youth = 1.0 - (input.past.age_ms() as f64 / OLD_PAST_MS).min(1.0);
    let limit = (normal * (SLOWER + SLOWER_WHILE_YOUNG * youth)).max(normal + input.config.latency_floor_seconds);
    let spread = (input.baseline.spread / normal).ln_1p().max(MIN_LOG_SPREAD);
    let distance = (value / normal).ln() / spread;
    if value <= limit || distance <= MIN_DISTANCE {
        return Verdict::Good;
    }
    if value < input.baseline.high * 1.2 {
        return Verdict::Doubtful(0.1);
    }
    let has_few = input.point.requests.is_some_and(|requests| requests.total < MANY_REQUESTS);
    let is_much = value >= MUCH_SLOWER * normal;
    let most = match (has_few, input.window_seconds() >= LONG_WINDOW_SECONDS) {
        (true, false) => 0.25,
        (false, true) if is_much => STRONG_WEIGHT,
        _ => MODERATE_WEIGHT,
    };
    let weight = ((distance - MIN_DISTANCE) / DISTANCE_RANGE).clamp(0.05, most);
    let is_high = is_much && value >= LONG_SECONDS;
    let share = input.point.tail.map_or(1.0, |tail| tail.share_above(limit));
    let slow = input.point.requests.map(|requests| requests.total * share);
    let is_ready = slow.is_none_or(|slow| {
        let slow_before = input.run.map_or(0.0, |run| run.requests.0);
        input.run_requests().1 >= MIN_REQUESTS && slow_before + slow >= MIN_SLOW_REQUESTS
    });
    Verdict::Bad(Sign {
        is_ready,
        failed: slow,
        severity: Some(if is_high { Severity::High } else { Severity::Warning }),
        ..Sign::above(limit, normal, weight)
    })
}

/// Share of the normal traffic below which it counts as stopped.
const STOPPED: f64 = 0.05;
/// Requests that a window without any would normally have had.
const MIN_EXPECTED: f64 = 4.0;
/// Requests that must be missing: rare ones pause by chance.
const MIN_LOST: f64 = 40.0;
/// Smallest traffic of the past, as a share of normal, at which it is steady.
const STEADY: f64 = 0.25;
/// Age of a past that can show steadiness, in ms, and the requests that it must have had: rare ones come in bursts,
/// with pauses that a short past does not show.
const MIN_STEADY_MS: i64 = 4 * 60 * 1000;
const MIN_STEADY_REQUESTS: f64 = 1000.0;

/// Traffic that stopped, of an entity that always had some.
pub(super) fn traffic_lost(input: &RuleInput<'_>) -> Verdict {
    let normal = input.baseline.center;
    let age_ms = input.past.age_ms();
    let is_long = age_ms >= MIN_STEADY_MS && normal * age_ms as f64 / 1000.0 >= MIN_STEADY_REQUESTS;
    let limit = normal * STOPPED;
    let since_ms = input.run.map_or(input.point.at_ms, |run| run.since_ms);
    let is_steady = is_long && input.baseline.low >= STEADY * normal;
    if !input.is_warm || !is_steady || normal * input.window_seconds() < MIN_EXPECTED {
        return Verdict::Unknown;
    }
    if input.point.value > limit {
        return Verdict::Good;
    }
    // The past holds no points of a pause that was evidence. Looked for only now: most points are good.
    let mut before = input.history.iter().take_while(|(at_ms, _)| *at_ms < since_ms);
    if before.any(|(_, value)| *value <= limit) {
        return Verdict::Unknown;
    }
    let seconds = (input.point.at_ms - since_ms) as f64 / 1000.0 + input.window_seconds();
    Verdict::Bad(Sign {
        is_ready: normal * seconds >= MIN_LOST,
        opens: Some(input.id.peer.is_none()),
        ..Sign::below(limit, normal, 0.34)
    })
}

/// Traffic that doubled or halved.
pub(super) fn traffic_shift(input: &RuleInput<'_>) -> Verdict {
    let (value, base) = (input.point.value, input.baseline);
    if !input.is_warm || base.center <= 0.0 {
        return Verdict::Unknown;
    }
    let is_far = (value - base.center).abs() > 4.0 * base.spread.max(0.1 * base.center);
    if is_far && value > 1.8 * base.center {
        Verdict::Bad(Sign::above(1.8 * base.center, base.center, 0.34))
    } else if is_far && value < base.center / 1.8 {
        Verdict::Bad(Sign::below(base.center / 1.8, base.center, 0.34))
    } else {
        Verdict::Good
    }
}
