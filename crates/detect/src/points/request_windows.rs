//! Signals of requests: traffic, errors and latency, each over as many windows as it takes for enough requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quantile::{Bound, quantile};
use super::signal_point::SignalSlot;
use super::sums::{SOURCES, Source};
use crate::point::{Point, RequestCounts, Tail};

/// Windows after which errors and means are reported with fewer requests than are wanted.
const MAX_JOINED_WINDOWS: u32 = 4;
/// Requests that a 99th percentile needs.
const MIN_P99_REQUESTS: f64 = 100.0;
/// Requests that a median needs.
const MIN_MEDIAN_REQUESTS: f64 = 10.0;
/// Requests that a mean needs: the evaluation gives one of few requests little weight.
const MIN_MEAN_REQUESTS: f64 = 5.0;
/// Time after which a latency is reported with fewer requests than are wanted, in ms.
const MAX_LATENCY_WINDOW_MS: i64 = 600_000;

/// The requests of all members in one window.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestStep {
    /// Time of the newest reading, in ms.
    pub(super) at_ms: i64,
    pub(super) window_ms: i64,
    pub(super) members: u32,
    pub(super) missing: u32,
    pub(super) sources: [Source; SOURCES],
    pub(super) failures: Option<f64>,
    pub(super) failures_per_second: f64,
    /// Requests per second; `None` if no series counts requests.
    pub(super) traffic: Option<f64>,
    /// Seconds spent on requests.
    pub(super) duration: Option<f64>,
    /// Increase per upper bound, in seconds.
    pub(super) buckets: Vec<(f64, f64)>,
    /// Probability and value of a quantile that the sender computed.
    pub(super) quantile: Option<(f64, f64)>,
}

/// What is joined over windows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct RequestWindows {
    errors: ErrorWindow,
    p99: LatencyWindow,
    median: LatencyWindow,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct ErrorWindow {
    since_ms: i64,
    windows: u32,
    counts: RequestCounts,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LatencyWindow {
    since_ms: i64,
    windows: u32,
    requests: f64,
    seconds: f64,
    buckets: BTreeMap<Bound, f64>,
}

impl RequestWindows {
    /// Adds a window; emits the points that are complete by it.
    pub(super) fn add(&mut self, step: &RequestStep, min_requests: f64, mut emit: impl FnMut(SignalSlot, Point)) {
        let counted = step.sources.iter().find(|source| source.exists);
        if let Some((rate, source)) = step.traffic.zip(counted) {
            let counts = RequestCounts { total: source.total, failed: source.failed };
            emit(SignalSlot::Traffic, step.point(step.at_ms - step.window_ms, rate, Some(counts)));
        }
        if let Some(counts) = step.outcomes() {
            if let Some(point) = self.errors.add(step, counts, min_requests) {
                emit(SignalSlot::Errors, point);
            }
        } else if step.failures.is_some() {
            let point = step.point(step.at_ms - step.window_ms, step.failures_per_second, None);
            emit(SignalSlot::Failures, point);
        }
        self.add_latency(step, emit);
    }

    fn add_latency(&mut self, step: &RequestStep, mut emit: impl FnMut(SignalSlot, Point)) {
        if !step.buckets.is_empty() || !self.p99.buckets.is_empty() {
            self.p99.add_buckets(step);
            self.median.add_buckets(step);
            if self.p99.is_enough(step, MIN_P99_REQUESTS) {
                self.p99.finish(step, 0.99).into_iter().for_each(|point| emit(SignalSlot::Latency, point));
            }
            if self.median.is_enough(step, MIN_MEDIAN_REQUESTS) {
                self.median.finish(step, 0.5).into_iter().for_each(|point| emit(SignalSlot::Median, point));
            }
        } else if let Some(seconds) = step.duration {
            let requests = step.duration_requests();
            self.p99.start(step);
            self.p99.windows += 1;
            self.p99.requests += requests;
            self.p99.seconds += seconds;
            let is_long = self.p99.windows >= MAX_JOINED_WINDOWS && self.p99.requests >= 1.0;
            if is_long || self.p99.is_enough(step, MIN_MEAN_REQUESTS) {
                let LatencyWindow { since_ms, requests, seconds, .. } = std::mem::take(&mut self.p99);
                let counts = RequestCounts { total: requests, failed: 0.0 };
                emit(SignalSlot::Latency, step.point(since_ms, seconds / requests, Some(counts)));
            }
        } else if let Some((q, seconds)) = step.quantile.filter(|(_, seconds)| seconds.is_finite()) {
            let counts = step.sources.iter().find(|source| source.exists);
            let counts = counts.map(|source| RequestCounts { total: source.total, failed: 0.0 });
            // A maximum says nothing about how many are as slow.
            let share = if q < 1.0 { 1.0 - q } else { 0.01 };
            let tail = Some(Tail { share, ..Tail::default() });
            let point = step.point(step.at_ms - step.window_ms, seconds, counts);
            emit(SignalSlot::Latency, Point { tail, ..point });
        }
    }
}

impl RequestStep {
    fn point(&self, since_ms: i64, value: f64, requests: Option<RequestCounts>) -> Point {
        Point {
            at_ms: self.at_ms,
            window_ms: self.at_ms - since_ms,
            value,
            requests,
            members: self.members,
            missing: self.missing,
            ..Point::default()
        }
    }

    /// Returns all and failed requests, by the first series that tell failed ones apart; otherwise by a counter of
    /// failures beside any counter of requests.
    fn outcomes(&self) -> Option<RequestCounts> {
        if let Some(source) = self.sources.iter().find(|source| source.has_outcome) {
            return Some(RequestCounts { total: source.total, failed: source.failed });
        }
        let source = self.sources.iter().find(|source| source.exists)?;
        // The two counters are read one after the other, so that the failed ones can be ahead.
        self.failures.map(|failed| RequestCounts { total: source.total.max(failed), failed })
    }

    /// Returns the requests that [`RequestStep::duration`] was spent on.
    fn duration_requests(&self) -> f64 {
        let source = self.sources.iter().rev().find(|source| source.exists);
        source.map_or(0.0, |source| source.total)
    }
}

impl ErrorWindow {
    fn add(&mut self, step: &RequestStep, counts: RequestCounts, min_requests: f64) -> Option<Point> {
        if self.counts.total == 0.0 {
            *self = Self { since_ms: step.at_ms - step.window_ms, ..Self::default() };
        }
        self.windows += 1;
        self.counts.total += counts.total;
        self.counts.failed += counts.failed;
        let RequestCounts { total, failed } = self.counts;
        if total <= 0.0 || (total < min_requests && self.windows < MAX_JOINED_WINDOWS) {
            return None;
        }
        let point = step.point(self.since_ms, (failed / total).min(1.0), Some(self.counts));
        *self = Self::default();
        Some(point)
    }
}

impl LatencyWindow {
    /// Begins with this window if nothing was counted before.
    fn start(&mut self, step: &RequestStep) {
        if self.requests <= 0.0 {
            *self = Self { since_ms: step.at_ms - step.window_ms, ..Self::default() };
        }
    }

    fn add_buckets(&mut self, step: &RequestStep) {
        self.start(step);
        for (bound, increase) in &step.buckets {
            *self.buckets.entry(Bound::new(*bound)).or_default() += increase;
        }
        self.requests = self.buckets.get(&Bound::INFINITE).copied().unwrap_or_default();
    }

    fn is_enough(&self, step: &RequestStep, min_requests: f64) -> bool {
        self.requests >= min_requests || (self.requests >= 1.0 && step.at_ms - self.since_ms >= MAX_LATENCY_WINDOW_MS)
    }

    fn finish(&mut self, step: &RequestStep, q: f64) -> Option<Point> {
        let Self { since_ms, requests, mut buckets, .. } = std::mem::take(self);
        // Members may have different bounds, and a series may be new: counts never fall from bound to bound.
        let mut below = 0.0_f64;
        for count in buckets.values_mut() {
            below = below.max(*count);
            *count = below;
        }
        let seconds = quantile(q, &buckets)?;
        let quantiles = Tail::QUANTILES.map(|q| quantile(q, &buckets).unwrap_or_default());
        let counts = RequestCounts { total: requests, failed: 0.0 };
        let tail = Some(Tail { share: 1.0 - q, quantiles });
        Some(Point { tail, ..step.point(since_ms, seconds, Some(counts)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of windows of 10 s; (all, failed, slow) requests each.
    fn points(windows: &[(f64, f64, f64)]) -> Vec<(SignalSlot, Point)> {
        let (mut joined, mut points) = (RequestWindows::default(), Vec::new());
        for ((total, failed, slow), index) in windows.iter().zip(1..) {
            let source = Source { exists: true, has_outcome: true, total: *total, failed: *failed };
            let step = RequestStep {
                at_ms: index * 10_000,
                window_ms: 10_000,
                members: 1,
                sources: [source, Source::default(), Source::default()],
                traffic: Some(total / 10.0),
                buckets: vec![(0.1, total - slow), (5.0, *total), (f64::INFINITY, *total)],
                ..RequestStep::default()
            };
            joined.add(&step, 5.0, |slot, point| points.push((slot, point)));
        }
        points
    }

    fn of(slot: SignalSlot, points: &[(SignalSlot, Point)]) -> Vec<(i64, i64, f64)> {
        let of_slot = points.iter().filter(|(known, _)| *known == slot);
        of_slot.map(|(_, point)| (point.at_ms, point.window_ms, point.value)).collect()
    }

    #[test]
    fn errors_join_windows_until_there_are_enough_requests() {
        let errors = |windows: &[(f64, f64, f64)]| of(SignalSlot::Errors, &points(windows));
        assert_eq!(errors(&[(20.0, 10.0, 0.0)]), [(10_000, 10_000, 0.5)]);
        // One request in ten seconds, each fails: seen after four windows.
        assert_eq!(errors(&[(1.0, 1.0, 0.0); 8]), [(40_000, 40_000, 1.0), (80_000, 40_000, 1.0)]);
        assert_eq!(errors(&[(3.0, 1.0, 0.0), (3.0, 0.0, 0.0)]), [(20_000, 20_000, 1.0 / 6.0)]);
        assert_eq!(errors(&[(0.0, 0.0, 0.0); 50]), [], "no requests are no errors and no success");
        assert_eq!(errors(&[(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (6.0, 3.0, 0.0)]), [(30_000, 10_000, 0.5)]);
    }

    #[test]
    fn a_99th_percentile_needs_a_hundred_requests_or_ten_minutes() {
        let latency = |windows: &[(f64, f64, f64)]| of(SignalSlot::Latency, &points(windows));
        let slow = latency(&[(15.0, 0.0, 0.0), (15.0, 0.0, 1.0)].repeat(4));
        assert_eq!((slow.len(), slow[0].0, slow[0].1), (1, 70_000, 70_000));
        assert!(slow[0].2 > 0.1, "three of 105 are more than one in a hundred");
        let one = latency(&[&[(15.0, 0.0, 1.0)][..], &[(15.0, 0.0, 0.0); 6]].concat());
        assert!(one[0].2 <= 0.1, "one slow request of 105 is not: {one:?}");
        assert_eq!(latency(&[(1.0, 0.0, 0.0); 60]).iter().map(|point| point.1).collect::<Vec<_>>(), [600_000]);
        let median = of(SignalSlot::Median, &points(&[(15.0, 0.0, 15.0); 2]));
        assert_eq!(median.iter().map(|point| point.1).collect::<Vec<_>>(), [10_000, 10_000]);
        assert!(median[0].2 > 0.1);
    }

    #[test]
    fn a_mean_and_a_counter_of_failures_are_used_where_there_is_nothing_better() {
        let (mut joined, mut points) = (RequestWindows::default(), Vec::new());
        let source = Source { exists: true, has_outcome: false, total: 40.0, failed: 0.0 };
        let step = RequestStep {
            at_ms: 10_000,
            window_ms: 10_000,
            sources: [Source::default(), Source::default(), source],
            failures: Some(10.0),
            failures_per_second: 1.0,
            duration: Some(20.0),
            ..RequestStep::default()
        };
        joined.add(&step, 5.0, |slot, point| points.push((slot, point)));
        assert_eq!(of(SignalSlot::Errors, &points), [(10_000, 10_000, 0.25)]);
        assert_eq!(of(SignalSlot::Latency, &points), [(10_000, 10_000, 0.5)]);
        let alone = RequestStep { sources: [Source::default(); SOURCES], duration: None, ..step };
        joined.add(&alone, 5.0, |slot, point| points.push((slot, point)));
        assert_eq!(of(SignalSlot::Failures, &points), [(10_000, 10_000, 1.0)]);
    }
}
