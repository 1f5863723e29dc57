//! Rules over states: up or down, restarts, ages and times of expiry.

use wardroom_domain::{EntityKind, Severity, SignalId};

use super::conditions::{EXPORTER, PROCESSES, is_condition};
use super::counts::Counts;
use super::normal_range::Baseline;
use super::past::Past;
use super::rule::{RuleInput, Sign, Verdict};
use crate::point::Point;

/// Resource of containers that wait to be started again after crashes.
const CRASH_LOOP: &str = "crash-loop";
/// Resource of containers whose last end was a kill for want of memory. That stays so until they end again.
const OOM_STATE: &str = "oom-killed";
/// Resource of restarts known by the time of a start.
const START: &str = "start";
/// Conditions that are news even if they were never met: a job that failed has failed from its first sample on.
const NEWS: [&str; 7] = ["job", "volume", "leader", "partitions", "cluster", "image-pull", "container-start"];
/// Smallest share of members whose loss counts.
const MIN_SHARE_LOST: f64 = 0.01;
/// Members that an orchestrator replaces one by one, and the time that this may take, in ms.
const ORCHESTRATED: [&str; 5] = ["replicas", "pods", "containers", "hosts", "members"];
const ROLLOUT_MS: i64 = 120_000;
/// Time that something must have been up before it can be down, in ms.
const STEADY_MS: i64 = 25_000;
/// The same for processes, which may be jobs.
const PROCESS_STEADY_MS: i64 = 3 * 60 * 1000;
/// Times that something must have gone down to be flapping.
const FLAPS: f64 = 3.0;

/// Fewer members are up than normal.
pub(super) fn availability(input: &RuleInput<'_>) -> Verdict {
    if [EXPORTER, CRASH_LOOP].contains(&input.id.resource.as_str()) { Verdict::Unknown } else { is_up(input) }
}

/// Waits to be started again after crashes. A pause between two crashes is no recovery.
pub(super) fn back_off(input: &RuleInput<'_>) -> Verdict {
    if input.id.resource != CRASH_LOOP {
        return Verdict::Unknown;
    }
    if input.point.value >= 1.0 {
        return Verdict::Good;
    }
    Verdict::Bad(Sign::below(1.0, 1.0, 0.5))
}

/// An exporter that cannot be scraped.
pub(super) fn exporter(input: &RuleInput<'_>) -> Verdict {
    if input.id.resource == EXPORTER { is_up(input) } else { Verdict::Unknown }
}

/// Returns the share of members that is normally up: all, until more is known. What was never up is no normal state
/// while it may be starting for the first time.
pub(super) fn normally_up(is_warm: bool, baseline: &Baseline, counts: &Counts, past: &Past) -> f64 {
    let may_start = !counts.was_up() && past.age_ms() < 2 * ROLLOUT_MS;
    if is_warm && !may_start { baseline.center } else { 1.0 }
}

fn normal_of(input: &RuleInput<'_>) -> f64 {
    normally_up(input.is_warm, &input.baseline, input.counts, input.past)
}

/// Returns the share of members below which a signal is down.
fn up_limit(input: &RuleInput<'_>) -> f64 {
    down_below(normal_of(input), input.point)
}

/// Returns the share below which a signal is down: half a member less than normal. A single member may itself report a
/// share, of replicas for example.
pub(super) fn down_below(normal: f64, point: &Point) -> f64 {
    let members = f64::from(point.members + point.missing);
    normal.min(1.0) - if members > 1.0 { 0.5 / members } else { MIN_SHARE_LOST }
}

fn is_up(input: &RuleInput<'_>) -> Verdict {
    let (value, limit) = (input.point.value, up_limit(input));
    if limit < MIN_SHARE_LOST {
        return Verdict::Unknown;
    }
    if value >= limit {
        return Verdict::Good;
    }
    let resource = input.id.resource.as_str();
    let is_condition = is_condition(resource);
    // What was up for a short time only may have been a job that ended; a condition that was never met is not news.
    let is_old = is_condition && !NEWS.contains(&resource);
    // Groups of processes are known only by what has run: one without any now may have been a job.
    let is_known = input.counts.was_up() || resource == PROCESSES;
    if (is_known || is_old) && !is_steady(input) {
        return Verdict::Unknown;
    }
    let normal = normal_of(input);
    let severity = match resource {
        _ if is_condition || resource == EXPORTER => Severity::Warning,
        _ if value <= 0.0 => Severity::Critical,
        _ => Severity::High,
    };
    // One of several members: it may be on its way out, or an orchestrator may be replacing it.
    let weight = if value <= 0.0 { 0.5 } else { 0.34 };
    let bad_ms = input.run.map_or(0, |run| input.point.at_ms - run.since_ms);
    // What was never up may be on its way: a new workload is scheduled, pulls its images and starts.
    let is_lost = value <= 0.5 * normal && input.counts.was_up();
    let is_ready = is_lost || !ORCHESTRATED.contains(&resource) || bad_ms >= ROLLOUT_MS;
    Verdict::Bad(Sign { is_ready, severity: Some(severity), ..Sign::below(limit, normal, weight) })
}

/// Returns whether a member was up, or without a restart, for long enough to be no job that comes and goes.
fn is_steady(input: &RuleInput<'_>) -> bool {
    let is_process = [PROCESSES, START].contains(&input.id.resource.as_str());
    input.counts.longest_quiet_ms() >= if is_process { PROCESS_STEADY_MS } else { STEADY_MS }
}

/// Went down again and again.
pub(super) fn flapping(input: &RuleInput<'_>) -> Verdict {
    if input.counts.sum() < FLAPS || input.id.resource == CRASH_LOOP || !is_steady(input) {
        return Verdict::Good;
    }
    let severity = if input.id.resource == EXPORTER { Severity::Warning } else { Severity::High };
    let since_ms = input.counts.first_ms();
    Verdict::Bad(Sign {
        severity: Some(severity),
        since_ms,
        ..Sign::below(up_limit(input), input.baseline.center, 1.0)
    })
}

/// Whether the events of a signal are kills for want of memory.
fn is_oom(input: &RuleInput<'_>) -> bool {
    input.id.resource.split(['_', '-', '.', ' ']).any(|word| word.starts_with("oom"))
}

/// Whether a signal is the state in which kills leave containers, not their number.
pub(super) fn is_oom_state(id: &SignalId) -> bool {
    id.resource == OOM_STATE
}

/// Started again several times.
pub(super) fn crash_loop(input: &RuleInput<'_>) -> Verdict {
    if is_oom(input) || (input.id.resource == START && !is_steady(input)) {
        return Verdict::Good;
    }
    let members = f64::from(input.point.members);
    // Each member may have been restarted once, by a person or a deployment.
    let needed = f64::from(input.config.crash_loop_restarts).max((members + 1.0).min(MAX_RESTARTS_NEEDED));
    let since_ms = input.counts.first_ms();
    if input.counts.sum() >= needed {
        return Verdict::Bad(Sign { since_ms, ..Sign::above(0.5, 0.0, 1.0) });
    }
    if members <= 1.0 && input.counts.sum_since(input.point.at_ms - QUICK_RESTARTS_MS) >= QUICK_RESTARTS {
        return Verdict::Bad(Sign { severity: Some(Severity::Warning), since_ms, ..Sign::above(0.5, 0.0, 1.0) });
    }
    Verdict::Good
}

/// Killed because its memory limit was reached. A kill on a machine says nothing about which of its processes it was.
pub(super) fn oom_kill(input: &RuleInput<'_>) -> Verdict {
    let is_state = is_oom_state(input.id);
    // A state stays long after its kill: a quarter of an hour later it is taken to be over.
    let kills = if is_state { input.counts.sum().min(input.point.value) } else { input.point.value };
    if !is_oom(input) || kills <= 0.0 {
        return Verdict::Good;
    }
    let is_machine = input.id.entity.kind == EntityKind::Node;
    let severity = if is_machine { Severity::Warning } else { Severity::High };
    let since_ms = input.counts.first_ms().filter(|_| is_state);
    Verdict::Bad(Sign { severity: Some(severity), opens: Some(!is_machine), since_ms, ..Sign::above(0.5, 0.0, 1.0) })
}

/// Most restarts of many members that a crash loop needs.
const MAX_RESTARTS_NEEDED: f64 = 10.0;
/// Restarts of a single member in a short time, in ms, that are a crash loop.
const QUICK_RESTARTS: f64 = 2.0;
const QUICK_RESTARTS_MS: i64 = 3 * 60 * 1000;

/// Multiple of the longest usual age that is too old.
const MUCH_OLDER: f64 = 3.0;
/// Age beyond the usual one that is an effect, in seconds.
const MIN_AGE_BEYOND: f64 = 60.0;

/// The newest success is too old.
pub(super) fn freshness(input: &RuleInput<'_>) -> Verdict {
    let Some(longest) = input.counts.longest_age().filter(|_| input.is_warm) else { return Verdict::Unknown };
    let usual = longest.max(input.interval_ms as f64 / 1000.0);
    let limit = (usual * MUCH_OLDER).max(usual + MIN_AGE_BEYOND);
    if input.point.value <= limit {
        return Verdict::Good;
    }
    Verdict::Bad(Sign::above(limit, input.baseline.center, 0.5))
}

/// Seconds of a day.
const DAY_SECONDS: f64 = 24.0 * 3600.0;
/// Days before an expiry from which it is evidence, of high severity, and critical.
const EVIDENCE_DAYS: f64 = 21.0;
const HIGH_DAYS: f64 = 7.0;
const CRITICAL_DAYS: f64 = 1.0;
/// Share of the longest time left below which something that is renewed regularly is late.
const LATE_SHARE: f64 = 0.2;
/// A jump of the time left by this factor is a renewal.
const RENEWAL: f64 = 1.5;

/// Something expires soon.
pub(super) fn expiry(input: &RuleInput<'_>) -> Verdict {
    let left = input.point.value;
    let longest = input.history.iter().map(|(_, value)| *value).fold(left, f64::max);
    let mut pairs = input.history.iter().zip(input.history.iter().skip(1));
    let is_renewed = pairs.any(|((_, before), (_, after))| *before > 0.0 && *after > before * RENEWAL);
    // Certificates that live for hours or days are always near their end.
    let scale = if is_renewed { (LATE_SHARE * longest / (HIGH_DAYS * DAY_SECONDS)).min(1.0) } else { 1.0 };
    let below = |days: f64| left < days * DAY_SECONDS * scale;
    if !below(EVIDENCE_DAYS) {
        return Verdict::Good;
    }
    let severity = if below(CRITICAL_DAYS) {
        Severity::Critical
    } else if below(HIGH_DAYS) {
        Severity::High
    } else {
        Severity::Warning
    };
    let limit = if below(HIGH_DAYS) { HIGH_DAYS } else { EVIDENCE_DAYS } * DAY_SECONDS * scale;
    let expected = if input.is_warm { input.baseline.center } else { longest };
    Verdict::Bad(Sign { severity: Some(severity), opens: Some(below(HIGH_DAYS)), ..Sign::below(limit, expected, 0.5) })
}
