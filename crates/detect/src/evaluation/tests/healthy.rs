//! Healthy days: no finding at all.

use super::super::*;
use super::feed::{Feed, Noise};
use crate::point::RequestCounts;

const DAY_MINUTES: i64 = 24 * 60;

/// Traffic by the time of the day.
fn daily(at_ms: i64) -> f64 {
    1.0 + 0.6 * (std::f64::consts::TAU * at_ms as f64 / 86_400_000.0).sin()
}

/// Runs a healthy day of one signal; returns the findings that would open an incident.
fn day(kind: SignalKind, unit: SignalUnit, seconds: i64, seed: u64, rate: f64) -> Vec<Finding> {
    let mut feed = Feed::new(kind, "", unit, seconds);
    if kind == SignalKind::Errors || kind == SignalKind::Latency {
        // As points are made: enough requests for a ratio, and for a quantile.
        let least = if kind == SignalKind::Errors { 5.0 } else { 100.0 };
        let joined = (least / rate * 1000.0 / feed.step_ms as f64).ceil().clamp(1.0, 600_000.0 / feed.step_ms as f64);
        feed.step_ms *= joined as i64;
    }
    let window = feed.step_ms as f64 / 1000.0;
    let noise = std::cell::RefCell::new(Noise(seed * 104_729 + 11));
    let mut found = feed.minutes(DAY_MINUTES, |_, point| {
        let mut noise = noise.borrow_mut();
        let total = noise.poisson(rate * window * daily(point.at_ms));
        match kind {
            SignalKind::Errors => {
                let failed = noise.poisson(total * 0.002).min(total);
                Feed::requests(point, failed, total);
                point.members = u32::from(total > 0.0);
            }
            SignalKind::Latency => {
                Feed::requests(point, 0.0, total);
                // The 99th percentile of n heavy-tailed durations: the largest of n / 100 parts of the tail.
                let tail = (0..(total / 100.0).ceil().clamp(1.0, 20.0) as u64).map(|_| 0.5 + noise.duration(0.05));
                let values: Vec<f64> = tail.collect();
                point.value = values.iter().sum::<f64>() / values.len() as f64;
                point.members = u32::from(total > 0.0);
            }
            SignalKind::Logs => point.value = noise.poisson(0.05 * window) / window,
            SignalKind::Queue => point.value = noise.poisson(4.0 * daily(point.at_ms)),
            _ => point.value = total / window,
        }
    });
    found.retain(|finding| finding.opens);
    found
}

#[test]
fn healthy_days_have_no_findings() {
    use SignalKind::{Errors, Latency, Logs, Queue, Traffic};
    let kinds = [
        (Errors, SignalUnit::Ratio),
        (Latency, SignalUnit::Seconds),
        (Traffic, SignalUnit::PerSecond),
        (Logs, SignalUnit::PerSecond),
        (Queue, SignalUnit::Number),
    ];
    for seed in 1..=200 {
        let rate = [0.5, 5.0, 50.0, 500.0][seed as usize % 4];
        let seconds = [15, 30, 60][seed as usize % 3];
        for (kind, unit) in kinds {
            let found = day(kind, unit, seconds, seed, rate);
            assert!(
                found.is_empty(),
                "{kind} seed {seed}, {rate}/s at {seconds} s: {} like {:?}",
                found.len(),
                found[0]
            );
        }
    }
}

/// Share of the day's peak at a time: two hours every day, which come and go within ten minutes and not at the same
/// minute every day.
fn peak(at_ms: i64) -> f64 {
    let day = at_ms.div_euclid(86_400_000);
    let minute = (at_ms.rem_euclid(86_400_000) / 60_000 - (day * 7) % 9) as f64;
    ((minute - 540.0) / 10.0).clamp(0.0, 1.0).min(((670.0 - minute) / 10.0).clamp(0.0, 1.0))
}

#[test]
fn a_daily_peak_is_no_news_once_it_was_seen_on_two_days() {
    type Value = fn(f64, f64) -> f64;
    let patterns: [(SignalKind, &str, SignalUnit, Value); 6] = [
        (SignalKind::Latency, "", SignalUnit::Seconds, |peak, noise| 0.1 * (1.0 + 2.5 * peak) * (1.0 + 0.06 * noise)),
        (SignalKind::Saturation, "cpu", SignalUnit::Ratio, |peak, noise| 0.3 + 0.65 * peak + 0.01 * noise),
        (SignalKind::Saturation, "connections", SignalUnit::Ratio, |peak, noise| 0.3 + 0.63 * peak + 0.01 * noise),
        (SignalKind::Queue, "", SignalUnit::Number, |peak, noise| 5.0 + 800.0 * peak + noise),
        (SignalKind::Traffic, "", SignalUnit::PerSecond, |peak, noise| 20.0 * (1.0 - peak) * (1.0 + 0.05 * noise)),
        (SignalKind::Logs, "", SignalUnit::PerSecond, |peak, noise| (0.2 + 6.0 * peak) * (1.0 + 0.1 * noise)),
    ];
    for (number, (kind, resource, unit, value)) in patterns.into_iter().enumerate() {
        for seconds in [30, 60] {
            let mut feed = Feed::new(kind, resource, unit, seconds);
            feed.at_ms = feed.at_ms.div_euclid(86_400_000) * 86_400_000;
            let first_day = feed.at_ms / 86_400_000;
            let noise = std::cell::RefCell::new(Noise(number as u64 * 97 + 3));
            let mut found = feed.minutes(7 * DAY_MINUTES, |_, point| {
                let normal = noise.borrow_mut().normal().clamp(-2.5, 2.5);
                point.value = value(peak(point.at_ms), normal).max(0.0);
                let total = 20.0 * seconds as f64;
                point.requests = (kind == SignalKind::Latency).then_some(RequestCounts { total, failed: 0.0 });
            });
            found.retain(|finding| finding.opens);
            let days: std::collections::BTreeSet<i64> =
                found.iter().map(|finding| finding.at_ms / 86_400_000 - first_day).collect();
            assert!(days.iter().all(|day| *day < 2), "{kind} {resource} at {seconds} s: days {days:?}");
            assert!(!days.is_empty() || kind == SignalKind::Logs, "{kind} {resource}: the first peak is news");
        }
    }
}

#[test]
fn a_fault_beyond_a_daily_peak_is_found() {
    let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, 60);
    feed.at_ms = feed.at_ms.div_euclid(86_400_000) * 86_400_000;
    let fault_ms = feed.at_ms + 4 * 86_400_000 + 15 * 3_600_000;
    let noise = std::cell::RefCell::new(Noise(11));
    let found = feed.minutes(5 * DAY_MINUTES, |_, point| {
        let factor = 1.0 + 2.5 * peak(point.at_ms) + if point.at_ms >= fault_ms { 5.0 } else { 0.0 };
        point.value = 0.1 * factor * (1.0 + 0.06 * noise.borrow_mut().normal());
    });
    let found = found.iter().find(|finding| finding.opens && finding.at_ms >= fault_ms);
    assert!(found.is_some_and(|finding| finding.at_ms < fault_ms + 300_000), "{found:?}");
}
