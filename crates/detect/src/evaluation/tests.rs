//! Patterns of points and what is found in them, at every scrape interval.

mod feed;
mod healthy;
mod requests;
mod resources;
mod states;

use self::feed::{Feed, INTERVALS};
use super::*;

#[test]
fn every_rule_has_its_own_id_and_a_description() {
    let mut ids: Vec<_> = RULES.iter().map(|rule| (rule.kind, rule.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), RULES.len());
    assert!(RULES.iter().all(|rule| !rule.about.is_empty()));
    let docs = include_str!("../../../../docs/detection.md");
    for rule in RULES {
        assert!(
            docs.contains(&format!(
                "
| `{}` |",
                rule.id
            )),
            "{} is missing in docs/detection.md",
            rule.id
        );
    }
}

#[test]
fn a_point_without_members_is_no_verdict() {
    let mut feed = Feed::new(SignalKind::Availability, "", SignalUnit::Ratio, 15);
    feed.run(40, |_, point| point.value = 1.0);
    let found = feed.run(40, |_, point| (point.value, point.members, point.missing) = (0.0, 0, 1));
    assert!(found.is_empty() && feed.signal.bad().is_none());
}

#[test]
fn old_and_repeated_points_change_nothing() {
    let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, 15);
    feed.run(40, |_, point| point.value = 0.1);
    let before = postcard::to_allocvec(&feed.signal).unwrap();
    feed.at_ms -= 15_000 * 10;
    assert!(feed.run(10, |_, point| point.value = 9.0).is_empty());
    assert_eq!(postcard::to_allocvec(&feed.signal).unwrap(), before);
}

#[test]
fn a_saved_signal_goes_on_as_if_it_had_never_been_saved() {
    let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, 15);
    feed.run(40, |_, point| Feed::requests(point, 0.0, 100.0));
    feed.run(1, |_, point| Feed::requests(point, 30.0, 100.0));
    let mut saved = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, 15);
    saved.signal = postcard::from_bytes(&postcard::to_allocvec(&feed.signal).unwrap()).unwrap();
    saved.at_ms = feed.at_ms;
    let found = feed.run(3, |_, point| Feed::requests(point, 30.0, 100.0));
    assert!(!found.is_empty());
    assert_eq!(saved.run(3, |_, point| Feed::requests(point, 30.0, 100.0)), found);
}

#[test]
fn the_baseline_is_frozen_while_a_rule_holds_and_a_level_that_lasts_becomes_normal() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, seconds);
        feed.minutes(30, |step, point| point.value = 0.1 + 0.01 * (step % 3) as f64);
        feed.minutes(60, |_, point| point.value = 0.4);
        let bad = feed.signal.bad().unwrap();
        assert!(bad.rule == "latency" && bad.expected < 0.13 && bad.limit < 0.2, "{bad:?}");
        assert!(feed.signal.baseline().center < 0.13);
        feed.minutes(26 * 60, |step, point| point.value = 0.4 + 0.01 * (step % 3) as f64);
        assert!(feed.signal.bad().is_none(), "after a day it is normal, at {seconds} s");
        assert!(feed.signal.baseline().center > 0.35);
    }
}

#[test]
fn a_finding_ends_after_good_points() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Errors, "", SignalUnit::Ratio, seconds);
        feed.minutes(20, |_, point| Feed::requests(point, 0.0, 200.0));
        assert!(!feed.minutes(10, |_, point| Feed::requests(point, 60.0, 200.0)).is_empty());
        assert!(feed.minutes(10, |_, point| Feed::requests(point, 0.0, 200.0)).is_empty());
        assert!(feed.signal.bad().is_none());
    }
}

#[test]
fn shifts_are_reported_once_and_thresholds_when_they_are_crossed() {
    let mut feed = Feed::new(SignalKind::Saturation, "disk", SignalUnit::Ratio, 15);
    feed.run(40, |step, point| point.value = 0.5 + 0.001 * (step % 3) as f64);
    feed.run(20, |_, point| point.value = 0.91);
    feed.run(20, |_, point| point.value = 0.97);
    let thresholds = feed.shifts.iter().filter(|shift| shift.detector == "threshold");
    let found: Vec<_> = thresholds.map(|shift| shift.severity).collect();
    assert_eq!(found, [Severity::Warning, Severity::Critical]);
    assert!(feed.shifts.len() <= 4, "{:?}", feed.shifts);
    let mut feed = Feed::new(SignalKind::Latency, "", SignalUnit::Seconds, 15);
    feed.run(40, |step, point| point.value = 0.1 + 0.01 * (step % 3) as f64);
    feed.run(40, |_, point| point.value = 0.3);
    let found: Vec<_> = feed.shifts.iter().map(|shift| shift.detector).collect();
    assert!(found.len() <= 2 && found.contains(&"zscore"), "{found:?}");
}
