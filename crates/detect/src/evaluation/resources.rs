//! Rules over limited resources and queues.

use std::collections::VecDeque;

use wardroom_domain::{EntityKind, Severity};
use wardroom_signals::{Direction, SignalUnit};

use super::rule::{RuleInput, Sign, Verdict};
use super::trend::trend;

/// How a resource behaves at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResourceClass {
    /// Work waits but goes on: CPU, input and output. Full use is common and often harmless.
    Shared,
    /// May be full for good reasons: memory that caches fill.
    Memory,
    /// Work fails: disks, connections, descriptors, quotas.
    Hard,
}

/// Resource of the replicas of an autoscaler.
const REPLICAS: &str = "replicas";
/// Words in names of shared resources.
const SHARED: [&str; 9] = ["cpu", "io", "load", "pressure", "network", "bandwidth", "throttling", "gc", "utilization"];
/// Words in names of memory.
const MEMORY: [&str; 6] = ["memory", "mem", "heap", "swap", "cache", "buffer"];

fn class_of(resource: &str) -> ResourceClass {
    let has = |words: &[&str]| resource.split(['_', '-', '.', ' ', '/']).any(|part| words.contains(&part));
    if has(&SHARED) {
        ResourceClass::Shared
    } else if has(&MEMORY) {
        ResourceClass::Memory
    } else {
        ResourceClass::Hard
    }
}

/// Returns the share of the limit in use; `None` without a limit.
fn share(input: &RuleInput<'_>, value: f64) -> Option<f64> {
    match input.point.limit {
        Some(limit) => (limit > 0.0).then(|| value / limit),
        None => (input.unit == SignalUnit::Ratio).then_some(value),
    }
}

/// Returns whether a resource is never filled on purpose: a pool or a quota may be as large as it is used, a disk may
/// not.
fn is_storage(input: &RuleInput<'_>) -> bool {
    let words = ["disk", "filesystem", "inodes", "storage", "volume", "descriptors"];
    input.id.entity.kind == EntityKind::Filesystem
        || input.id.resource.split(['_', '-', '.', ' ']).any(|word| words.contains(&word))
        || (input.id.entity.kind == EntityKind::Database && input.id.resource == "connections")
}

/// Smallest distance from the past at which a share is an effect.
const MIN_SHARE_RISE: f64 = 0.05;
/// How far below a level the past must have stayed, as a share of the limit.
const MIN_NEWS: f64 = 0.015;
/// Time within which a resource may have come near its limit, in ms.
const RECENT_MS: i64 = 10 * 60 * 1000;
const LEAST_RECENT_MS: i64 = 2 * 60 * 1000;
/// Share of a hard limit that is bad without a past.
const EXHAUSTED: f64 = 0.95;
/// Shares of a limit from which severity is high and critical.
const HIGH: f64 = 0.95;
const CRITICAL: f64 = 0.98;
/// Largest normal share of a shared resource at which its exhaustion is news.
const IDLE_SHARE: f64 = 0.7;

/// A resource that is near its limit now.
pub(super) fn saturation(input: &RuleInput<'_>) -> Verdict {
    let Some(used) = share(input, input.point.value) else { return Verdict::Unknown };
    if input.direction == Direction::Low {
        return Verdict::Unknown;
    }
    let scale = input.point.limit.unwrap_or(1.0);
    let class = class_of(&input.id.resource);
    let base = input.baseline;
    let normal = base.center / scale;
    let limit = input.config.saturation;
    if !input.is_warm {
        // While nothing is known: only what is never filled on purpose, and only if hardly anything is left.
        return if is_storage(input) && used >= EXHAUSTED {
            Verdict::Bad(Sign {
                severity: Some(severity(used)),
                ..Sign::above(EXHAUSTED * scale, EXHAUSTED * scale, 0.2)
            })
        } else if used < limit {
            Verdict::Good
        } else {
            Verdict::Unknown
        };
    }
    // What it reached before it came near is its way; growth of the last minutes is not.
    let usual = usual_high(input) / scale;
    let is_news = [limit, CRITICAL].iter().any(|level| used >= *level && usual < level - MIN_NEWS);
    if used < limit || !is_news {
        return Verdict::Good;
    }
    // An autoscaler at its maximum is at work; whether that is enough shows elsewhere.
    let opens = (input.id.resource == REPLICAS).then_some(false);
    let sign = Sign { opens, severity: Some(severity(used)), ..Sign::above(limit * scale, base.center, 0.0) };
    match class {
        ResourceClass::Shared if normal > IDLE_SHARE => Verdict::Good,
        ResourceClass::Shared => {
            let covered = input.run.map_or(0, |run| input.point.at_ms - run.since_ms);
            let is_ready = covered >= i64::from(input.config.shared_saturation_seconds) * 1000;
            Verdict::Bad(Sign { weight: 0.25, is_ready, severity: Some(Severity::Warning), ..sign })
        }
        ResourceClass::Memory => Verdict::Bad(Sign { weight: 0.34, ..sign }),
        ResourceClass::Hard => Verdict::Bad(Sign { weight: if used >= CRITICAL { 0.5 } else { 0.34 }, ..sign }),
    }
}

/// Returns what the resource reached before the last minutes: ten, or two while nothing older is known.
fn usual_high(input: &RuleInput<'_>) -> f64 {
    input.past.high_before(input.point.at_ms - RECENT_MS, input.point.at_ms).unwrap_or_else(|| {
        let begin = input.history.partition_point(|(at_ms, _)| *at_ms <= input.point.at_ms - LEAST_RECENT_MS);
        high_before(input, begin).unwrap_or(input.baseline.center)
    })
}

fn severity(used: f64) -> Severity {
    if used >= CRITICAL {
        Severity::Critical
    } else if used >= HIGH {
        Severity::High
    } else {
        Severity::Warning
    }
}

/// Newest points over which growth is looked for: short runs find fast growth, long ones slow growth.
const TREND_POINTS: [usize; 4] = [6, 12, 48, 240];
/// Least time that a trend must cover, in seconds.
const MIN_TREND_SECONDS: f64 = 45.0;
/// Least agreement of the points of a trend.
const MIN_AGREEMENT: f64 = 0.8;
/// Least growth within a trend, as a share of the limit.
const MIN_GROWTH: f64 = 0.03;
/// A forecast reaches this many times as far as its trend goes back, at least.
const HORIZON_PER_TREND: f64 = 3.0;
/// Points before a trend that must have been steady, at least and for long trends, and their largest range as a share
/// of the growth.
const MIN_STEADY_POINTS: usize = 6;
const ENOUGH_STEADY_POINTS: usize = 12;
const MAX_STEADY_RANGE: f64 = 0.25;
/// Share of a limit below which nothing is forecast.
const MIN_SHARE_OF_FORECAST: f64 = 0.5;

/// The same for disks.
const MIN_SHARE_OF_DISK_FORECAST: f64 = 0.25;

/// A resource that will be exhausted soon if it goes on growing.
pub(super) fn forecast(input: &RuleInput<'_>) -> Verdict {
    let Some(used) = share(input, input.point.value) else { return Verdict::Unknown };
    let class = class_of(&input.id.resource);
    if !input.is_warm || class == ResourceClass::Shared || input.direction == Direction::Low {
        return Verdict::Unknown;
    }
    let scale = input.point.limit.unwrap_or(1.0);
    // A disk has no reason to fill quickly and then stop; memory and pools grow after a start and with the load.
    let is_disk = input.id.entity.kind == EntityKind::Filesystem || input.id.resource == "disk";
    if used < if is_disk { MIN_SHARE_OF_DISK_FORECAST } else { MIN_SHARE_OF_FORECAST } {
        return Verdict::Good;
    }
    if input.id.resource == REPLICAS {
        return Verdict::Unknown;
    }
    let horizon = f64::from(input.config.forecast_horizon_seconds);
    for points in TREND_POINTS {
        let Some(found) = newest_trend(input.history, points) else { break };
        let growth = found.slope * found.seconds / scale;
        if found.seconds < MIN_TREND_SECONDS || found.agreement < MIN_AGREEMENT || growth < MIN_GROWTH {
            continue;
        }
        let seconds_left = (1.0 - used).max(0.0) * scale / found.slope;
        if seconds_left > horizon.max(HORIZON_PER_TREND * found.seconds)
            || !is_new_growth(input, points, growth * scale)
        {
            continue;
        }
        let severity = if seconds_left < 600.0 { Severity::High } else { Severity::Warning };
        let limit = (input.baseline.center + 0.01 * scale).max(MIN_SHARE_OF_DISK_FORECAST * scale);
        let weight = if growth >= 3.0 * MIN_GROWTH { 0.5 } else { 0.34 };
        return Verdict::Bad(Sign { severity: Some(severity), ..Sign::above(limit, input.baseline.center, weight) });
    }
    // It stays high but no longer grows.
    Verdict::Doubtful(0.2)
}

/// Returns whether the newest points have left the values before them, and whether those were steady: what a process
/// fills after its start, and a heap between two collections, is its way.
fn is_new_growth(input: &RuleInput<'_>, points: usize, growth: f64) -> bool {
    let Some(begin) = input.history.len().checked_sub(points) else { return false };
    let high = high_before(input, begin);
    if high.is_none_or(|high| input.point.value <= high + growth / 3.0) {
        return false;
    }
    // Once it is suspected, growth goes before growth.
    input.run.is_some() || {
        let before = input.history.range(begin.saturating_sub(points.max(MIN_STEADY_POINTS))..begin);
        let (low, high) = before
            .clone()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
        before.len() >= points.clamp(MIN_STEADY_POINTS, ENOUGH_STEADY_POINTS) && high - low < growth * MAX_STEADY_RANGE
    }
}

/// Returns the largest value that two points in a row reached before the point with this index, for a day.
fn high_before(input: &RuleInput<'_>, begin: usize) -> Option<f64> {
    let begin_ms = input.history.get(begin).map_or(input.point.at_ms, |(at_ms, _)| *at_ms);
    let old = input.past.high_before(begin_ms, input.point.at_ms);
    let points = input.history.range(..begin);
    let pairs = points.clone().zip(points.skip(1)).map(|((_, a), (_, b))| a.min(*b));
    pairs.chain(old).reduce(f64::max)
}

fn newest_trend(history: &VecDeque<(i64, f64)>, points: usize) -> Option<super::trend::Trend> {
    let skipped = history.len().checked_sub(points)?;
    trend(history.iter().skip(skipped).copied())
}

/// Smallest rise of a resource that is evidence, as a multiple of normal.
const MORE: f64 = 1.4;

/// Use of a resource, with or without a limit, far above its own past. Evidence, unless it is extreme.
pub(super) fn shift(input: &RuleInput<'_>) -> Verdict {
    let (value, base) = (input.point.value, input.baseline);
    if !input.is_warm {
        return Verdict::Unknown;
    }
    if input.direction == Direction::Low {
        let limit = base.center / MORE;
        let is_far = base.center - value > 4.0 * base.spread;
        return if is_far && value < limit {
            Verdict::Bad(Sign::below(limit, base.center, 0.34))
        } else {
            Verdict::Good
        };
    }
    let floor = share(input, 1.0).map_or(0.0, |per_unit| MIN_SHARE_RISE / per_unit);
    let limit = (base.center * MORE).max(base.center + floor);
    let is_far = value - base.center > 4.0 * base.spread.max(0.02 * base.center.abs());
    if is_far && value > limit && value > base.high {
        Verdict::Bad(Sign { opens: Some(is_extreme(input)), ..Sign::above(limit, base.center, 0.34) })
    } else {
        Verdict::Good
    }
}

/// CPU, in cores, and memory, in bytes: the least rise that may open an incident.
const MIN_CORES: f64 = 0.4;
const MIN_BYTES: f64 = 64e6;
/// The same with a limit, as a share of it.
const MIN_SHARE: f64 = 0.33;
/// Multiple of normal, spreads, multiple of what it reaches now and then, and time in ms that it must last.
const EXTREME: f64 = 3.0;
const EXTREME_SPREADS: f64 = 8.0;
const EXTREME_HIGHS: f64 = 1.5;
const EXTREME_MS: i64 = 90_000;

/// Returns whether the use of CPU or memory is so far from its past, and for so long, that it is a
/// fault in itself.
fn is_extreme(input: &RuleInput<'_>) -> bool {
    let (value, base) = (input.point.value, input.baseline);
    let floor = match (input.id.resource.as_str(), input.unit) {
        ("cpu", SignalUnit::Number | SignalUnit::PerSecond) => MIN_CORES,
        ("memory", SignalUnit::Bytes) => MIN_BYTES,
        // A machine does whatever it is given; a service that suddenly needs a third of its limit more does not.
        ("cpu" | "memory", SignalUnit::Ratio) if input.id.entity.kind != EntityKind::Node => MIN_SHARE,
        _ => return false,
    };
    let since_ms = input.run.map_or(input.point.at_ms, |run| run.since_ms);
    value >= EXTREME * base.center
        && value >= base.center + floor.max(EXTREME_SPREADS * base.spread)
        && value >= EXTREME_HIGHS * base.high
        && input.point.at_ms - since_ms >= EXTREME_MS
}

/// Waiting items or seconds that are an effect, by unit.
const MIN_QUEUED_ITEMS: f64 = 10.0;
const MIN_QUEUED_SECONDS: f64 = 30.0;
/// The same while nothing is taken out: an age grows by almost a second a second then.
const MIN_QUEUED_SECONDS_STOPPED: f64 = 20.0;
const STOPPED_GROWTH: f64 = 0.7;
/// Multiple of the limit from which one point is a sign before growth is: a batch adds one, and then drains.
const FAR_ABOVE: f64 = 2.0;
const MIN_QUEUED_SHARE: f64 = 0.2;
const MIN_QUEUED_BYTES: f64 = 1e6;
/// Newest points over which a queue must grow: short runs find fast growth, long ones slow growth.
const QUEUE_POINTS: [usize; 3] = [4, 12, 48];
const MIN_QUEUE_AGREEMENT: f64 = 0.6;

/// A queue that grows far beyond its own past.
pub(super) fn queue(input: &RuleInput<'_>) -> Verdict {
    if !input.is_warm {
        return Verdict::Unknown;
    }
    // As much is taken out as put in: it will not grow, whatever one point says.
    let flow = input.point.flow.unwrap_or_default();
    if flow.added.zip(flow.drained).is_some_and(|(added, drained)| drained > added) {
        return Verdict::Doubtful(0.2);
    }
    let is_stopped = flow.drained.map_or_else(|| grows_like_time(input), |drained| drained <= 0.0);
    let floor = match input.unit {
        SignalUnit::Seconds if is_stopped => MIN_QUEUED_SECONDS_STOPPED,
        SignalUnit::Seconds => MIN_QUEUED_SECONDS,
        SignalUnit::Ratio => MIN_QUEUED_SHARE,
        SignalUnit::Bytes => MIN_QUEUED_BYTES,
        SignalUnit::Number | SignalUnit::PerSecond => MIN_QUEUED_ITEMS,
    };
    let (value, base) = (input.point.value, input.baseline);
    let weight = if is_stopped { 0.5 } else { 0.34 };
    let limit_of = |high: f64| (high * 1.5).max(high + floor).max(base.center + 6.0 * base.spread);
    if let Some(run) = input.run {
        // The past is that before the first bad point.
        let is_above = value > run.limit;
        let is_going_on = run.is_confirmed || QUEUE_POINTS.iter().any(|points| is_growing(input, *points));
        return match (is_above, is_going_on) {
            (true, true) => Verdict::Bad(Sign::above(run.limit, run.expected, weight)),
            (true, false) => Verdict::Doubtful(0.2),
            (false, _) => Verdict::Good,
        };
    }
    if value <= (base.center + 6.0 * base.spread).max(floor) {
        return Verdict::Good;
    }
    for points in QUEUE_POINTS {
        let Some(begin) = input.history.len().checked_sub(points) else { break };
        let limit = limit_of(high_before(input, begin).unwrap_or(base.high));
        if value > limit && (is_growing(input, points) || grows_like_time(input) || value > FAR_ABOVE * limit) {
            return Verdict::Bad(Sign::above(limit, base.center, weight));
        }
    }
    Verdict::Good
}

/// Returns whether an age has grown almost as fast as time since the point before.
fn grows_like_time(input: &RuleInput<'_>) -> bool {
    let mut newest = input.history.iter().rev();
    let pair = newest.next().zip(newest.next());
    input.unit == SignalUnit::Seconds
        && pair.is_some_and(|((at_ms, value), (before_ms, before))| {
            (value - before) * 1000.0 >= STOPPED_GROWTH * (at_ms - before_ms).max(1) as f64
        })
}

fn is_growing(input: &RuleInput<'_>, points: usize) -> bool {
    newest_trend(input.history, points).is_some_and(|found| found.slope > 0.0 && found.agreement >= MIN_QUEUE_AGREEMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_resources_are_found_by_whole_words() {
        for (resource, class) in [
            ("cpu", ResourceClass::Shared),
            ("disk_io", ResourceClass::Shared),
            ("disk", ResourceClass::Hard),
            ("connections", ResourceClass::Hard),
            ("file_descriptors", ResourceClass::Hard),
            ("heap", ResourceClass::Memory),
            ("memory", ResourceClass::Memory),
            ("", ResourceClass::Hard),
        ] {
            assert_eq!(class_of(resource), class, "{resource}");
        }
    }
}
