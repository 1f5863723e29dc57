//! Healthy days: no finding at all.

use super::super::*;
use super::feed::{Feed, Noise};

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
