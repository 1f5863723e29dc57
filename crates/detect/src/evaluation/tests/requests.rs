//! Errors, latency and traffic.

use super::super::*;
use super::feed::{Feed, INTERVALS, Noise, delay};
use crate::point::Tail;

/// Returns the delay of an errors finding after the share of failures rises, with Poisson requests.
fn errors_delay(seconds: i64, rate: f64, before: f64, after: f64, seed: u64) -> Option<i64> {
    let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, seconds);
    // Windows are joined until they have five requests.
    let window = (5.0 / rate * 1000.0 / feed.step_ms as f64).ceil().max(1.0) as i64;
    feed.step_ms *= window;
    let mut noise = Noise(seed * 7919 + 1);
    let step_seconds = feed.step_ms as f64 / 1000.0;
    let mut counts = |share: f64| {
        let total = noise.poisson(rate * step_seconds);
        let failed = (0..total as u64).filter(|_| noise.uniform() < share).count();
        (failed as f64, total)
    };
    let past: Vec<_> = (0..1800 * 1000 / feed.step_ms).map(|_| counts(before)).collect();
    let fault: Vec<_> = (0..600 * 1000 / feed.step_ms).map(|_| counts(after)).collect();
    let early =
        feed.run(past.len() as i64, |step, point| Feed::requests(point, past[step as usize].0, past[step as usize].1));
    assert!(early.is_empty(), "false at {seconds} s, {rate}/s: {:?}", early[0]);
    let began_ms = feed.at_ms;
    let found = feed
        .run(fault.len() as i64, |step, point| Feed::requests(point, fault[step as usize].0, fault[step as usize].1));
    delay(&found, "errors", began_ms)
}

#[test]
fn failures_are_found_fast_at_every_interval_and_rate() {
    for seconds in INTERVALS {
        for rate in [0.5, 5.0, 50.0, 500.0] {
            for seed in 1..20 {
                let found = errors_delay(seconds, rate, 0.0, 1.0, seed);
                assert!(found.is_some_and(|delay| delay <= 3 * seconds.max(15)), "{seconds} s, {rate}/s: {found:?}");
            }
        }
    }
}

#[test]
fn a_twentyfold_share_of_failures_is_found_below_five_percent() {
    for seconds in INTERVALS {
        for (rate, most) in [(5.0, 150), (50.0, 60), (500.0, 60)] {
            for seed in 1..20 {
                let found = errors_delay(seconds, rate, 0.002, 0.04, seed);
                let most = most.max(3 * seconds);
                assert!(found.is_some_and(|delay| delay <= most), "{seconds} s, {rate}/s: {found:?}");
            }
        }
    }
}

#[test]
fn one_failure_among_few_and_a_blip_of_one_scrape_are_none() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, seconds);
        let found = feed.minutes(120, |step, point| {
            Feed::requests(point, if step % 40 == 39 { 1.0 } else { 0.0 }, 7.0);
        });
        assert!(found.is_empty(), "{seconds} s: {:?}", found[0]);
        let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, seconds);
        let found = feed.minutes(120, |step, point| {
            Feed::requests(point, if step == 300_000 / 1000 { 40.0 } else { 0.0 }, 100.0);
        });
        assert!(found.is_empty(), "{seconds} s: {:?}", found[0]);
    }
}

#[test]
fn what_always_fails_is_no_finding() {
    for share in [0.05, 0.3, 1.0] {
        let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, 15);
        let found = feed.minutes(120, |step, point| Feed::requests(point, 100.0 * share - (step % 2) as f64, 100.0));
        assert!(found.is_empty(), "{share}: {:?}", found[0]);
    }
}

#[test]
fn failures_without_requests_are_compared_with_their_own_rate() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::PerSecond, seconds);
        assert!(feed.minutes(30, |step, point| point.value = if step % 5 == 0 { 0.01 } else { 0.0 }).is_empty());
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| point.value = 1.0);
        assert!(delay(&found, "errors", began_ms).is_some_and(|delay| delay <= 3 * seconds.max(20)), "{seconds} s");
    }
}

/// The 99th percentile (or, with `mean`, the mean) of Poisson requests with heavy-tailed durations.
fn latency(noise: &mut Noise, requests: f64, median: f64, mean: bool) -> (f64, f64) {
    let count = noise.poisson(requests).clamp(1.0, 400.0);
    let mut values: Vec<f64> = (0..count as u64).map(|_| noise.duration(median)).collect();
    values.sort_by(f64::total_cmp);
    let value = match mean {
        true => values.iter().sum::<f64>() / values.len() as f64,
        false => values[((values.len() - 1) as f64 * 0.99) as usize],
    };
    (value, count)
}

#[test]
fn a_latency_that_doubles_is_found_and_its_noise_is_not() {
    for seconds in INTERVALS {
        for seed in 1..12 {
            let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
            let mut noise = Noise(seed);
            let mut values = |median: f64, points: i64| -> Vec<(f64, f64)> {
                (0..points).map(|_| latency(&mut noise, 300.0, median, true)).collect()
            };
            let (past, fault) = (values(0.086, 3_600_000 / feed.step_ms), values(0.180, 600_000 / feed.step_ms));
            let set = |point: &mut Point, (value, count): (f64, f64)| {
                Feed::requests(point, 0.0, count);
                point.value = value;
            };
            let early = feed.run(past.len() as i64, |step, point| set(point, past[step as usize]));
            assert!(early.is_empty(), "{seconds} s: {:?}", early[0]);
            let began_ms = feed.at_ms;
            let found = feed.run(fault.len() as i64, |step, point| set(point, fault[step as usize]));
            let found = delay(&found, "latency", began_ms);
            assert!(found.is_some_and(|delay| delay <= 180.max(3 * seconds)), "{seconds} s: {found:?}");
        }
    }
}

#[test]
fn a_quantile_of_twice_the_time_is_found_within_a_minute_or_two() {
    for (seconds, most) in [(1, 60), (5, 60), (15, 90), (30, 120), (60, 180)] {
        let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
        feed.minutes(30, |step, point| point.value = 0.110 + 0.004 * (step % 5) as f64);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |step, point| point.value = 0.230 + 0.01 * (step % 3) as f64);
        let found = delay(&found, "latency", began_ms);
        assert!(found.is_some_and(|delay| delay <= most), "{seconds} s: {found:?}");
    }
}

#[test]
fn a_slow_tail_of_few_requests_is_none_until_there_are_some_and_a_slow_body_is_found_at_once() {
    for seconds in [15, 60] {
        let total = 2.0 * seconds as f64;
        let value = |slow: f64, point: &mut Point| {
            Feed::requests(point, 0.0, total);
            (point.value, point.tail) = (0.3 * slow, Some(Tail { share: 0.01, quantiles: [0.1, 0.12, 0.15, 0.2] }));
        };
        let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
        feed.minutes(30, |step, point| value(1.0 + 0.05 * (step % 3) as f64, point));
        let tail = feed.minutes(5, |_, point| value(2.5, point));
        assert!(tail.is_empty(), "six requests of 600 at {seconds} s: {:?}", tail[0]);
        let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
        feed.minutes(30, |step, point| value(1.0 + 0.05 * (step % 3) as f64, point));
        let began_ms = feed.at_ms;
        let body = feed.minutes(10, |_, point| {
            value(2.5, point);
            point.tail = Some(Tail { share: 0.01, quantiles: [0.8, 0.8, 0.8, 0.8] });
        });
        let found = delay(&body, "latency", began_ms);
        assert!(found.is_some_and(|delay| delay <= 300), "{seconds} s: {found:?}");
        let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
        feed.minutes(30, |step, point| value(1.0 + 0.05 * (step % 3) as f64, point));
        let lasting = feed.minutes(20, |_, point| value(2.5, point));
        assert!(!lasting.is_empty(), "{seconds} s: a tail that stays slow is found");
    }
}

#[test]
fn one_slow_request_at_a_low_rate_is_none() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
        let count = (1.5 * feed.step_ms as f64 / 1000.0).round();
        let found = feed.minutes(120, |step, point| {
            Feed::requests(point, 0.0, count);
            let slow = if step % 97 == 60 { 3.0 } else { 0.05 };
            point.value = (0.05 * (count - 1.0) + slow) / count;
        });
        assert!(found.is_empty(), "{seconds} s: {:?}", found[0]);
    }
}

#[test]
fn steady_traffic_that_stops_opens_and_double_traffic_is_evidence_only() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Traffic, "", SignalUnit::PerSecond, seconds);
        feed.direction = Direction::Neutral;
        let mut noise = Noise(5);
        let past: Vec<f64> = (0..3_600_000 / feed.step_ms)
            .map(|_| noise.poisson(5.0 * feed.step_ms as f64 / 1000.0) * 1000.0 / feed.step_ms as f64)
            .collect();
        assert!(feed.run(past.len() as i64, |step, point| point.value = past[step as usize]).is_empty());
        let double = feed.minutes(5, |step, point| point.value = 2.0 * past[step as usize]);
        assert!(double.iter().all(|finding| !finding.opens), "{seconds} s: {double:?}");
        feed.minutes(30, |step, point| point.value = past[step as usize]);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        let found = delay(&found, "traffic-lost", began_ms);
        assert!(found.is_some_and(|delay| delay <= 180.max(3 * seconds)), "{seconds} s: {found:?}");
    }
}

#[test]
fn rare_requests_that_come_in_bursts_are_not_steady() {
    for seconds in [15, 30, 60] {
        let mut feed = Feed::new(SignalKind::Traffic, "", SignalUnit::PerSecond, seconds);
        feed.direction = Direction::Neutral;
        let burst = 40 * 60_000 / feed.step_ms;
        let pause = 12 * 60_000 / feed.step_ms;
        let found = feed.minutes(6 * 60, |step, point| {
            point.value = if step % (burst + pause) < burst { 0.33 } else { 0.0 };
        });
        let opened = found.iter().find(|finding| finding.opens);
        assert_eq!(opened, None, "{seconds} s");
    }
}

#[test]
fn the_noise_of_quantiles_and_means_of_few_requests_is_none() {
    for seed in 1..40 {
        for (requests, mean) in [(5.0, true), (20.0, true), (60.0, true), (100.0, false), (300.0, false)] {
            let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, [15, 30, 60][seed as usize % 3]);
            let mut noise = Noise(seed * 31 + requests as u64);
            let points = 24 * 3_600_000 / feed.step_ms;
            let values: Vec<_> = (0..points).map(|_| latency(&mut noise, requests, 0.05, mean)).collect();
            let found = feed.run(points, |step, point| {
                let (value, count) = values[step as usize];
                Feed::requests(point, 0.0, count);
                point.value = value;
            });
            assert!(
                found.is_empty(),
                "{requests} requests, mean {mean}, seed {seed}: {} like {:?}",
                found.len(),
                found[0]
            );
        }
    }
}

#[test]
fn a_steady_small_share_of_failures_is_none_whatever_the_first_minutes_showed() {
    for seconds in INTERVALS {
        for (rate, share) in [(2.0, 0.004), (2.0, 0.02), (5.0, 0.006), (5.0, 0.02), (12.0, 0.006), (50.0, 0.01)] {
            for seed in 1..25 {
                let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, seconds);
                let mut noise = Noise(seed * 331 + 5);
                let mean = rate * feed.step_ms as f64 / 1000.0;
                let points = 4 * 3_600_000 / feed.step_ms;
                let counts: Vec<_> = (0..points)
                    .map(|_| {
                        let total = noise.poisson(mean);
                        (noise.poisson(total * share).min(total), total)
                    })
                    .collect();
                let found = feed.run(points, |step, point| {
                    let (failed, total) = counts[step as usize];
                    Feed::requests(point, failed, total);
                });
                assert!(found.is_empty(), "{rate}/s, {share} at {seconds} s, seed {seed}: {:?}", found[0]);
            }
        }
    }
}
