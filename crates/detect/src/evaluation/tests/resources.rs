//! Limited resources, queues and levels.

use super::super::*;
use super::feed::{Feed, INTERVALS, delay};

#[test]
fn a_resource_that_reaches_its_limit_is_found() {
    for seconds in INTERVALS {
        for resource in ["connections", "disk", "file_descriptors", "memory", ""] {
            let mut feed = Feed::new(SignalKind::Saturation, resource, SignalUnit::Ratio, seconds);
            feed.minutes(30, |step, point| point.value = 0.3 + 0.01 * (step % 4) as f64);
            let began_ms = feed.at_ms;
            let found = feed.minutes(10, |_, point| point.value = 1.0);
            let found = delay(&found, "saturation", began_ms);
            assert!(found.is_some_and(|delay| delay <= 60.max(3 * seconds)), "{resource} at {seconds} s: {found:?}");
        }
    }
}

#[test]
fn a_resource_with_a_limit_in_its_own_unit_is_compared_with_that() {
    let mut feed = Feed::new(SignalKind::Saturation, "connections", SignalUnit::Number, 15);
    feed.minutes(30, |_, point| (point.value, point.limit) = (20.0, Some(100.0)));
    let found = feed.minutes(10, |_, point| (point.value, point.limit) = (97.0, Some(100.0)));
    assert!(found.iter().any(|finding| finding.rule == "saturation" && finding.limit == 90.0));
}

#[test]
fn growth_is_forecast_before_the_limit_is_reached() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Saturation, "disk", SignalUnit::Ratio, seconds);
        feed.minutes(30, |step, point| point.value = 0.55 + 0.001 * (step % 3) as f64);
        // Full after 30 minutes.
        let per_step = 0.45 / 1800.0 * feed.step_ms as f64 / 1000.0;
        let began_ms = feed.at_ms;
        let found = feed.minutes(15, |step, point| point.value = 0.55 + per_step * step as f64);
        let found = delay(&found, "saturation-forecast", began_ms);
        assert!(found.is_some_and(|delay| delay <= 300.max(8 * seconds)), "{seconds} s: {found:?}");
    }
}

#[test]
fn what_is_always_full_a_heap_between_collections_and_slow_growth_are_no_findings() {
    type Make = fn(i64, &mut Point);
    let patterns: [(&str, Make); 8] = [
        ("memory", |step, point| point.value = 0.97 + 0.001 * (step % 5) as f64),
        ("cpu", |step, point| point.value = 1.0 - 0.001 * (step % 5) as f64),
        ("heap", |step, point| point.value = 0.3 + 0.03 * (step % 21) as f64),
        ("connection-pool", |_, point| point.value = 1.0),
        ("executor", |step, point| point.value = if step * step % 7 > 2 { 1.0 } else { 0.0 }),
        ("disk", |step, point| point.value = 0.6 + 0.000_001 * step as f64),
        ("disk", |step, point| point.value = 0.92 + 0.001 * (step % 5) as f64),
        ("memory", |step, point| point.value = 0.7 - 0.6 * (-(step as f64) / 40.0).exp()),
    ];
    for seconds in INTERVALS {
        for (number, (resource, make)) in patterns.iter().enumerate() {
            let mut feed = Feed::new(SignalKind::Saturation, resource, SignalUnit::Ratio, seconds);
            let mut found = feed.minutes(240, make);
            found.retain(|finding| finding.opens);
            assert!(found.is_empty(), "pattern {number} at {seconds} s: {:?}", found[0]);
        }
    }
}

#[test]
fn what_is_always_full_is_no_finding_whenever_it_is_seen_first() {
    for seconds in INTERVALS {
        // The first block of the past may have a single point.
        for phase in [0, 100, 200, 250, 290] {
            let mut feed = Feed::new(SignalKind::Saturation, "disk", SignalUnit::Ratio, seconds);
            feed.at_ms += phase * 1000;
            let found = feed.minutes(60, |step, point| point.value = 0.921 + 0.0001 * (step % 5) as f64);
            assert!(found.iter().all(|finding| !finding.opens), "{phase} s at {seconds} s: {:?}", found[0]);
        }
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_opens() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Saturation, "disk", SignalUnit::Ratio, seconds);
        let began_ms = feed.at_ms;
        let found = feed.minutes(20, |_, point| point.value = 0.99);
        assert!(delay(&found, "saturation", began_ms).is_some(), "{seconds} s");
    }
}

#[test]
fn a_backup_of_thirty_seconds_is_none_and_a_hog_of_minutes_opens() {
    for seconds in INTERVALS {
        for resource in ["cpu", "disk_io"] {
            let mut feed = Feed::new(SignalKind::Saturation, resource, SignalUnit::Ratio, seconds);
            let length = (30_000 / feed.step_ms).max(1) + 1;
            let every = 240_000 / feed.step_ms;
            let mut found = feed.minutes(60, |step, point| {
                point.value = if step % every >= every - length { 1.0 } else { 0.2 + 0.01 * (step % 7) as f64 };
            });
            found.retain(|finding| finding.opens);
            assert!(found.is_empty(), "{resource} at {seconds} s: {:?}", found[0]);
            let mut feed = Feed::new(SignalKind::Saturation, resource, SignalUnit::Ratio, seconds);
            feed.minutes(30, |step, point| point.value = 0.2 + 0.01 * (step % 7) as f64);
            let began_ms = feed.at_ms;
            let found = feed.minutes(10, |_, point| point.value = 0.99);
            let found = delay(&found, "saturation", began_ms);
            assert!(found.is_some_and(|delay| delay <= 180.max(4 * seconds)), "{resource} at {seconds} s: {found:?}");
        }
    }
}

#[test]
fn use_of_a_resource_is_evidence_unless_it_is_extreme() {
    for seconds in INTERVALS {
        for (resource, unit, normal) in [
            ("memory", SignalUnit::Bytes, 4e7),
            ("cpu", SignalUnit::Number, 0.2),
            ("cpu", SignalUnit::Ratio, 0.1),
            ("memory", SignalUnit::Ratio, 0.1),
        ] {
            for (factor, opens) in [(2.0, false), (5.0, true)] {
                let mut feed = Feed::new(SignalKind::Saturation, resource, unit, seconds);
                feed.minutes(10, |step, point| point.value = normal * (1.0 + 0.02 * (step % 3) as f64));
                let began_ms = feed.at_ms;
                let found = feed.minutes(10, |_, point| point.value = normal * factor);
                assert!(!found.is_empty(), "{resource} at {seconds} s");
                let found = delay(&found, "saturation-shift", began_ms);
                assert_eq!(found.is_some(), opens, "{resource} at {seconds} s: {found:?}");
                assert!(found.is_none_or(|delay| delay <= 180), "{resource} at {seconds} s: {found:?}");
            }
        }
    }
}

#[test]
fn a_queue_that_only_grows_opens_and_one_that_drains_does_not() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Queue, "", SignalUnit::Number, seconds);
        let step_seconds = feed.step_ms as f64 / 1000.0;
        assert!(feed.minutes(10, |step, point| point.value = (step % 3) as f64).is_empty());
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |step, point| point.value = 0.8 * step_seconds * step as f64);
        let found = delay(&found, "queue-growing", began_ms);
        assert!(found.is_some_and(|delay| delay <= 120.max(5 * seconds)), "{seconds} s: {found:?}");
        // A batch every ten minutes.
        let mut feed = Feed::new(SignalKind::Queue, "", SignalUnit::Number, seconds);
        let every = 600_000 / feed.step_ms;
        feed.minutes(60, |step, point| point.value = 500.0 * (1.0 - (step % every) as f64 / every as f64));
        let found = feed.minutes(120, |step, point| point.value = 500.0 * (1.0 - (step % every) as f64 / every as f64));
        assert!(found.is_empty(), "{seconds} s: {:?}", found[0]);
    }
}

#[test]
fn a_burst_of_error_lines_opens_and_a_few_do_not() {
    for seconds in INTERVALS {
        for before in [0.0, 0.5] {
            let mut feed = Feed::new(SignalKind::Logs, "", SignalUnit::PerSecond, seconds);
            let few = feed.minutes(30, |step, point| point.value = before + if step % 50 == 0 { 0.1 } else { 0.0 });
            assert!(few.is_empty(), "{seconds} s: {:?}", few[0]);
            let began_ms = feed.at_ms;
            let found = feed.minutes(10, |_, point| point.value = 30.0);
            let found = delay(&found, "error-log-burst", began_ms);
            assert!(found.is_some_and(|delay| delay <= 60.max(3 * seconds)), "{seconds} s: {found:?}");
        }
    }
}

#[test]
fn an_unknown_series_is_evidence_unless_configured() {
    for opens in [false, true] {
        let mut feed = Feed::new(SignalKind::Other, "", SignalUnit::Number, 15);
        feed.direction = Direction::Neutral;
        feed.config.unknown_series_open = opens;
        feed.minutes(30, |step, point| point.value = 100.0 + (step % 5) as f64);
        let found = feed.minutes(10, |_, point| point.value = 900.0);
        assert!(!found.is_empty() && found.iter().all(|finding| finding.opens == opens));
    }
}

#[test]
fn an_age_that_grows_like_time_opens_soon_and_one_that_falls_again_does_not() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Queue, "replication-lag", SignalUnit::Seconds, seconds);
        let step_seconds = feed.step_ms as f64 / 1000.0;
        feed.minutes(20, |step, point| point.value = 0.2 + 0.1 * (step % 3) as f64);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |step, point| point.value = 0.9 * step_seconds * (step + 1) as f64);
        let found = delay(&found, "queue-growing", began_ms);
        assert!(found.is_some_and(|delay| delay <= 80.max(2 * seconds)), "{seconds} s: {found:?}");
        let mut feed = Feed::new(SignalKind::Queue, "replication-lag", SignalUnit::Seconds, seconds);
        let every = 600_000 / feed.step_ms;
        let long = (30_000 / feed.step_ms).max(1);
        let found = feed.minutes(120, |step, point| {
            let step = step % every;
            point.value = if step < long { step_seconds * step as f64 } else { 0.3 };
        });
        assert!(found.is_empty(), "{seconds} s: {:?}", found[0]);
    }
}
