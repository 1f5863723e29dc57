//! What the series of one member say about one window, before members are compared.

use std::collections::BTreeMap;

use wardroom_domain::SignalKind;
use wardroom_signals::{Outcome, Part, SignalUnit};

use super::cell::{Taken, is_passive};
use super::member::Member;

/// A limit that was reported this long ago is still one, in ms: it comes from another exporter at another pace.
const MAX_LIMIT_AGE_MS: i64 = 600_000;
/// A limit from here on is none: the greatest numbers that control groups and runtimes show for "unlimited".
const UNLIMITED: f64 = 4.6e18;
/// A unix time this long ago is none, in seconds (30 years): some metrics are named like one and tell a duration.
const OLDEST_SECONDS: f64 = 30.0 * 365.25 * 86_400.0;

/// Where the number of requests comes from, best first.
pub(super) const SOURCES: usize = 3;
const COUNTERS: usize = 0;
const BUCKETS: usize = 1;
const DURATIONS: usize = 2;

/// Requests by one kind of series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Source {
    /// Whether there are such series.
    pub(super) exists: bool,
    /// Whether their labels say which requests failed.
    pub(super) has_outcome: bool,
    pub(super) total: f64,
    pub(super) failed: f64,
}

/// The sums of one member in one window.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// Whether a series reported.
    pub(super) reported: bool,
    /// Time of the newest reading used, in ms.
    pub(super) newest_ms: Option<i64>,
    /// Longest time that a counter's increase covers, in ms.
    pub(super) covered_ms: i64,
    pub(super) sources: [Source; SOURCES],
    pub(super) failures: Option<f64>,
    pub(super) failures_per_second: f64,
    /// Seconds spent on requests.
    pub(super) duration: Option<f64>,
    /// Increase per upper bound.
    pub(super) buckets: Vec<(f64, f64)>,
    /// Probability and value of the quantile nearest to the 99th percentile.
    pub(super) quantile: Option<(f64, f64)>,
    value: Option<f64>,
    rate: Option<f64>,
    idle: Option<f64>,
    idle_cells: u32,
    /// Sum of the limits of each metric.
    limits: BTreeMap<u32, f64>,
    free: Option<f64>,
    up: Option<f64>,
    up_cells: u32,
    desired: Option<f64>,
    available: Option<f64>,
    newest_time: Option<f64>,
    oldest_time: Option<f64>,
    changes: Option<f64>,
    count: Option<f64>,
    drained: Option<f64>,
    added: Option<f64>,
}

/// The value of a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MemberValue {
    pub(super) value: f64,
    pub(super) limit: Option<f64>,
    /// Whether the value is a share of the limit.
    pub(super) is_share: bool,
}

impl Sums {
    /// Adds what one series says.
    pub(super) fn add(&mut self, (metric, part): (u32, Part), taken: &Taken, member: &Member, end_ms: i64) {
        if taken.reported && !is_passive(part) {
            self.reported = true;
            self.newest_ms = self.newest_ms.max(Some(taken.at_ms));
        }
        if taken.covered_ms > 0 {
            self.add_increase(part, taken);
        } else {
            self.note_source(part);
        }
        let Some((at_ms, value)) = taken.level else { return };
        let is_current = taken.reported || member.is_not_due(at_ms, end_ms);
        match part {
            Part::Limit if at_ms + MAX_LIMIT_AGE_MS >= end_ms && value > 0.0 && value < UNLIMITED => {
                *self.limits.entry(metric).or_default() += value;
            }
            _ if is_current => self.add_level(part, value),
            _ => {}
        }
    }

    fn add_increase(&mut self, part: Part, taken: &Taken) {
        let (increase, seconds) = (taken.increase, taken.covered_ms as f64 / 1000.0);
        let rate = increase / seconds;
        match part {
            Part::Requests(outcome) => self.add_requests(COUNTERS, outcome, increase),
            Part::Bucket(bound, outcome) => {
                self.buckets.push((bound, increase));
                if bound.is_infinite() {
                    self.add_requests(BUCKETS, outcome, increase);
                }
            }
            Part::DurationCount(outcome) => self.add_requests(DURATIONS, outcome, increase),
            Part::DurationSum(_) => add(&mut self.duration, increase),
            Part::Failures => {
                add(&mut self.failures, increase);
                self.failures_per_second += rate;
            }
            Part::Rate => add(&mut self.rate, rate),
            Part::IdleRate => {
                add(&mut self.idle, rate);
                self.idle_cells += 1;
            }
            Part::Drained => add(&mut self.drained, rate),
            Part::Added => add(&mut self.added, rate),
            Part::Count => add(&mut self.count, increase),
            Part::Time => add(&mut self.changes, increase),
            Part::Quantile(_) | Part::Value | Part::Limit | Part::Free | Part::Up | Part::Desired | Part::Available => {
                return;
            }
        }
        self.covered_ms = self.covered_ms.max(taken.covered_ms);
    }

    fn add_requests(&mut self, source: usize, outcome: Outcome, increase: f64) {
        let source = &mut self.sources[source];
        source.exists = true;
        source.has_outcome |= outcome != Outcome::Unknown;
        source.total += increase;
        if outcome == Outcome::Failed {
            source.failed += increase;
        }
    }

    /// Notes a series without an increase, so that a source does not vanish while it counts nothing.
    fn note_source(&mut self, part: Part) {
        match part {
            Part::Requests(outcome) => self.add_requests(COUNTERS, outcome, 0.0),
            Part::Bucket(bound, outcome) if bound.is_infinite() => self.add_requests(BUCKETS, outcome, 0.0),
            Part::DurationCount(outcome) => self.add_requests(DURATIONS, outcome, 0.0),
            _ => {}
        }
    }

    fn add_level(&mut self, part: Part, value: f64) {
        match part {
            Part::Quantile(q) => {
                let rank = |q: f64| if q <= 0.99 { q } else { 0.99 - q };
                if self.quantile.is_none_or(|(known, _)| rank(q) > rank(known)) {
                    self.quantile = Some((q, value));
                } else if let Some((_, highest)) = self.quantile.as_mut().filter(|(known, _)| *known == q) {
                    *highest = highest.max(value);
                }
            }
            Part::Value => add(&mut self.value, value),
            Part::Free => add(&mut self.free, value),
            Part::Up => {
                add(&mut self.up, value);
                self.up_cells += 1;
            }
            Part::Desired => add(&mut self.desired, value),
            Part::Available => add(&mut self.available, value),
            Part::Time if value > 0.0 => {
                self.newest_time = Some(self.newest_time.map_or(value, |known| known.max(value)));
                self.oldest_time = Some(self.oldest_time.map_or(value, |known| known.min(value)));
            }
            _ => {}
        }
    }

    /// Returns the value of the member; `None` if what it reports is not enough for one.
    pub(super) fn value(&self, kind: SignalKind, unit: SignalUnit) -> Option<MemberValue> {
        let plain = |value: f64| Some(MemberValue { value, limit: None, is_share: false });
        // Several exporters may tell the same limit: they are not added up.
        let limit = self.limits.values().copied().reduce(f64::min);
        if let Some(available) = self.available {
            return match self.desired {
                Some(desired) if desired > 0.0 => plain((available / desired).clamp(0.0, 1.0)),
                Some(_) => plain(1.0),
                None => plain(f64::from(u8::from(available > 0.0))),
            };
        }
        if let Some(up) = self.up {
            return plain((up / f64::from(self.up_cells.max(1))).clamp(0.0, 1.0));
        }
        if let Some((newest, oldest)) = self.newest_time.zip(self.oldest_time) {
            let now = self.newest_ms? as f64 / 1000.0;
            if now - newest > OLDEST_SECONDS {
                return None;
            }
            return match kind {
                SignalKind::Restarts => plain(self.changes.unwrap_or_default()),
                SignalKind::Expiry => plain(oldest - now),
                _ => plain((now - newest).max(0.0)),
            };
        }
        if let Some(count) = self.count {
            return plain(count);
        }
        if let (Some(idle), None) = (self.idle, limit) {
            return plain((1.0 - idle / f64::from(self.idle_cells.max(1))).clamp(0.0, 1.0));
        }
        let used = self.value.or(self.rate).or_else(|| Some(limit? - self.free.or(self.idle)?))?;
        match limit {
            Some(limit) if kind == SignalKind::Saturation || unit == SignalUnit::Ratio => {
                Some(MemberValue { value: used / limit, limit: None, is_share: true })
            }
            limit => Some(MemberValue { value: used, limit, is_share: false }),
        }
    }

    /// Returns whether the value is a share of what is up.
    pub(super) const fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Returns what went through the queue, per second: put in, taken out.
    pub(super) const fn flow(&self) -> (Option<f64>, Option<f64>) {
        (self.added, self.drained)
    }
}

fn add(sum: &mut Option<f64>, value: f64) {
    *sum = Some(sum.unwrap_or_default() + value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: SignalKind, unit: SignalUnit, parts: &[(Part, f64)]) -> Option<MemberValue> {
        let (mut sums, member) = (Sums::default(), Member::new(0, 0, String::new()));
        for (part, value) in parts {
            let level = Some((60_000, *value));
            let taken = Taken { reported: true, at_ms: 60_000, increase: *value, covered_ms: 10_000, level };
            sums.add((0, *part), &taken, &member, 60_000);
        }
        sums.value(kind, unit)
    }

    #[test]
    fn a_member_has_one_value_of_its_parts() {
        let share = |value: f64| Some(MemberValue { value, limit: None, is_share: true });
        let plain = |value: f64| Some(MemberValue { value, limit: None, is_share: false });
        let saturation = |parts: &[(Part, f64)]| value(SignalKind::Saturation, SignalUnit::Bytes, parts);
        assert_eq!(saturation(&[(Part::Value, 30.0), (Part::Value, 20.0), (Part::Limit, 100.0)]), share(0.5));
        assert_eq!(saturation(&[(Part::Free, 25.0), (Part::Limit, 100.0)]), share(0.75));
        assert_eq!(saturation(&[(Part::Free, 25.0)]), None, "what is free says nothing without the limit");
        assert_eq!(saturation(&[(Part::Value, 30.0)]), plain(30.0));
        assert_eq!(saturation(&[(Part::Value, 30.0), (Part::Limit, 9.3e18)]), plain(30.0), "unlimited");
        assert_eq!(saturation(&[(Part::Rate, 5.0), (Part::Limit, 2.0)]), share(0.25), "half a core of two");
        assert_eq!(saturation(&[(Part::IdleRate, 9.0), (Part::IdleRate, 1.0)]), plain(0.5), "two CPUs");
        let queue = value(SignalKind::Queue, SignalUnit::Number, &[(Part::Value, 30.0), (Part::Limit, 100.0)]);
        assert_eq!(queue, Some(MemberValue { value: 30.0, limit: Some(100.0), is_share: false }));
        let availability = |parts: &[(Part, f64)]| value(SignalKind::Availability, SignalUnit::Ratio, parts);
        assert_eq!(availability(&[(Part::Desired, 4.0), (Part::Available, 3.0)]), plain(0.75));
        assert_eq!(availability(&[(Part::Desired, 0.0), (Part::Available, 0.0)]), plain(1.0));
        assert_eq!(availability(&[(Part::Available, 0.0)]), plain(0.0));
        assert_eq!(availability(&[(Part::Up, 1.0), (Part::Up, 0.0)]), plain(0.5));
        assert_eq!(value(SignalKind::Expiry, SignalUnit::Seconds, &[(Part::Time, 3660.0)]), plain(3600.0));
        assert_eq!(value(SignalKind::Freshness, SignalUnit::Seconds, &[(Part::Time, 20.0)]), plain(40.0));
        assert_eq!(value(SignalKind::Freshness, SignalUnit::Seconds, &[(Part::Time, 0.0)]), None, "never");
        let in_an_hour = Taken { reported: true, level: Some((1_795_255_200_000, 3600.0)), ..Taken::default() };
        let (mut sums, member) = (Sums::default(), Member::new(0, 0, String::new()));
        let at_ms = 1_795_255_200_000;
        sums.add((0, Part::Time), &Taken { at_ms, ..in_an_hour }, &member, at_ms);
        assert_eq!(sums.value(SignalKind::Expiry, SignalUnit::Seconds), None, "a duration is no time");
        assert_eq!(value(SignalKind::Restarts, SignalUnit::Number, &[(Part::Count, 2.0)]), plain(2.0));
    }

    #[test]
    fn the_quantile_nearest_to_the_99th_percentile_is_used() {
        let (mut sums, member) = (Sums::default(), Member::new(0, 0, String::new()));
        for (q, value) in [(0.5, 1.0), (0.999, 9.0), (0.95, 3.0), (0.95, 4.0), (0.9, 2.0)] {
            let taken = Taken { reported: true, level: Some((0, value)), ..Taken::default() };
            sums.add((0, Part::Quantile(q)), &taken, &member, 1000);
        }
        assert_eq!(sums.quantile, Some((0.95, 4.0)));
    }
}
