//! Availability, restarts, ages and expiry.

use super::super::*;
use super::feed::{Feed, INTERVALS, delay};

#[test]
fn down_is_found_and_one_failed_scrape_is_none() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "", SignalUnit::Ratio, seconds);
        feed.direction = Direction::Low;
        let found = feed.minutes(120, |step, point| point.value = if step % 150 == 149 { 0.0 } else { 1.0 });
        assert!(found.is_empty() || seconds == 1, "{seconds} s: {:?}", found[0]);
        let mut feed = Feed::new(SignalKind::Availability, "", SignalUnit::Ratio, seconds);
        feed.minutes(30, |_, point| point.value = 1.0);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        assert_eq!(found[0].severity, Severity::Critical);
        let found = delay(&found, "availability", began_ms);
        assert!(found.is_some_and(|delay| delay <= 45.max(2 * seconds)), "{seconds} s: {found:?}");
    }
}

#[test]
fn one_of_several_members_is_found_and_members_that_left_are_not() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "", SignalUnit::Ratio, seconds);
        feed.minutes(30, |_, point| (point.value, point.members) = (1.0, 3));
        // A rolling deployment: new members, then the old ones gone.
        let deploy = feed.minutes(5, |step, point| (point.value, point.members) = (1.0, if step < 4 { 6 } else { 3 }));
        assert!(deploy.is_empty());
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| (point.value, point.members) = (2.0 / 3.0, 3));
        assert_eq!(found[0].severity, Severity::High);
        let found = delay(&found, "availability", began_ms);
        assert!(found.is_some_and(|delay| delay <= 60.max(3 * seconds)), "{seconds} s: {found:?}");
    }
}

#[test]
fn an_exporter_that_is_down_is_a_warning_and_a_start_in_a_bad_state_opens() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "exporter", SignalUnit::Ratio, seconds);
        feed.minutes(30, |_, point| point.value = 1.0);
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        assert!(found.iter().all(|finding| finding.rule == "exporter-down" && finding.severity == Severity::Warning));
        assert!(!found.is_empty());
        let mut feed = Feed::new(SignalKind::Availability, "", SignalUnit::Ratio, seconds);
        assert!(!feed.minutes(10, |_, point| point.value = 0.0).is_empty(), "{seconds} s");
    }
}

#[test]
fn going_down_again_and_again_is_flapping() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "", SignalUnit::Ratio, seconds);
        feed.minutes(30, |_, point| point.value = 1.0);
        let every = 180_000 / feed.step_ms;
        let began_ms = feed.at_ms;
        let found = feed.minutes(12, |step, point| point.value = if step % every == 0 { 0.0 } else { 1.0 });
        assert!(found.iter().all(|finding| finding.since_ms == began_ms + feed.step_ms), "from the first time on");
        assert!(found.iter().any(|finding| finding.rule == "flapping" && finding.opens), "{seconds} s");
    }
}

#[test]
fn several_restarts_are_a_crash_loop_one_is_none_and_one_kill_opens() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Restarts, "", SignalUnit::Number, seconds);
        let hour = 3_600_000 / feed.step_ms;
        let rare = feed.minutes(600, |step, point| point.value = if step % hour == 7 { 1.0 } else { 0.0 });
        assert!(rare.is_empty(), "{seconds} s: {:?}", rare[0]);
        let began_ms = feed.at_ms;
        let every = 60_000 / feed.step_ms;
        let found = feed.minutes(10, |step, point| point.value = if step % every == 0 { 1.0 } else { 0.0 });
        assert!(delay(&found, "crash-loop", began_ms).is_some_and(|delay| delay <= 180), "{seconds} s");
        let mut feed = Feed::new(SignalKind::Restarts, "oom", SignalUnit::Number, seconds);
        let found = feed.minutes(30, |step, point| point.value = if step == 20 { 1.0 } else { 0.0 });
        assert_eq!(found.iter().map(|finding| finding.rule.as_str()).collect::<Vec<_>>(), ["oom-kill"]);
    }
}

#[test]
fn a_success_that_stays_away_is_found_and_a_regular_one_is_not() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Freshness, "", SignalUnit::Seconds, seconds);
        let step_seconds = feed.step_ms as f64 / 1000.0;
        let every = 120_000 / feed.step_ms;
        let regular = feed.minutes(60, |step, point| point.value = (step % every) as f64 * step_seconds);
        assert!(regular.is_empty(), "{seconds} s: {:?}", regular[0]);
        let found = feed.minutes(20, |step, point| point.value = step as f64 * step_seconds);
        assert!(found.iter().any(|finding| finding.rule == "freshness" && finding.opens), "{seconds} s");
    }
}

#[test]
fn expiry_opens_below_a_week_even_from_the_start_and_short_lived_certificates_do_not() {
    let day = 86_400.0;
    for seconds in INTERVALS {
        for (days, severity, opens) in [
            (82.0, None, false),
            (20.0, Some(Severity::Warning), false),
            (3.0, Some(Severity::High), true),
            (0.5, Some(Severity::Critical), true),
            (-1.0, Some(Severity::Critical), true),
        ] {
            for past in [0, 10] {
                let mut feed = Feed::new(SignalKind::Expiry, "", SignalUnit::Seconds, seconds);
                feed.direction = Direction::Low;
                feed.minutes(past, |_, point| point.value = 82.0 * day);
                let found = feed.minutes(5, |_, point| point.value = days * day);
                let first = found.first().map(|finding| (finding.severity, finding.opens));
                assert_eq!(first, severity.map(|severity| (severity, opens)), "{days} days at {seconds} s");
            }
        }
    }
    // A certificate of a day that is renewed every half day.
    let mut feed = Feed::new(SignalKind::Expiry, "", SignalUnit::Seconds, 60);
    feed.minutes(30, |_, point| point.value = 30.0 * day);
    let found = feed.run(3000, |step, point| point.value = day - ((step % 720) * 60) as f64);
    assert!(found.iter().skip(2).all(|finding| !finding.opens || finding.at_ms < feed.at_ms - 2000 * 60_000));
}

#[test]
fn a_condition_that_was_never_met_is_none_and_one_that_ends_opens() {
    for resource in ["clock-synchronisation", "mount", "systemd-units"] {
        let mut feed = Feed::new(SignalKind::Availability, resource, SignalUnit::Ratio, 15);
        assert!(feed.minutes(30, |_, point| point.value = 0.0).is_empty(), "{resource}");
        let mut feed = Feed::new(SignalKind::Availability, resource, SignalUnit::Ratio, 15);
        feed.minutes(10, |_, point| point.value = 1.0);
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        assert!(found.iter().any(|finding| finding.opens && finding.severity == Severity::Warning), "{resource}");
    }
}

#[test]
fn a_rollout_that_takes_a_minute_is_none_and_missing_replicas_open() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "replicas", SignalUnit::Ratio, seconds);
        feed.minutes(20, |_, point| point.value = 1.0);
        let rollout = feed.minutes(1, |_, point| point.value = 0.75);
        assert!(rollout.is_empty(), "{seconds} s");
        feed.minutes(20, |_, point| point.value = 1.0);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| point.value = 0.75);
        let found = delay(&found, "availability", began_ms);
        assert!(found.is_some_and(|delay| delay <= 180.max(4 * seconds)), "{seconds} s: {found:?}");
        let mut feed = Feed::new(SignalKind::Availability, "replicas", SignalUnit::Ratio, seconds);
        feed.minutes(20, |_, point| point.value = 1.0);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        let found = delay(&found, "availability", began_ms);
        assert!(found.is_some_and(|delay| delay <= 45.max(2 * seconds)), "{seconds} s: {found:?}");
        // A new workload takes a while to start, and one that never does is found.
        for (minutes, is_found) in [(2, false), (10, true)] {
            let mut feed = Feed::new(SignalKind::Availability, "replicas", SignalUnit::Ratio, seconds);
            let found = feed.minutes(minutes, |_, point| point.value = 0.0);
            assert_eq!(!found.is_empty(), is_found, "{minutes} minutes at {seconds} s");
        }
    }
}

#[test]
fn a_job_that_failed_is_news_from_its_first_sample_on_and_most_replicas_do_not_wait() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "job", SignalUnit::Ratio, seconds);
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        assert!(found.iter().any(|finding| finding.opens && finding.severity == Severity::Warning), "{seconds} s");
        assert_eq!(found[0].summary, "job fails");
        let mut feed = Feed::new(SignalKind::Availability, "pods", SignalUnit::Ratio, seconds);
        feed.minutes(20, |_, point| point.value = 1.0);
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |_, point| point.value = 0.33);
        let found = delay(&found, "availability", began_ms);
        assert!(found.is_some_and(|delay| delay <= 60.max(3 * seconds)), "{seconds} s: {found:?}");
    }
}

#[test]
fn a_container_that_waits_after_crashes_is_a_crash_loop_even_if_it_starts_in_between() {
    for seconds in INTERVALS {
        let mut feed = Feed::new(SignalKind::Availability, "crash-loop", SignalUnit::Ratio, seconds);
        assert!(feed.minutes(10, |_, point| point.value = 1.0).is_empty());
        let began_ms = feed.at_ms;
        let found = feed.minutes(10, |step, point| point.value = if step % 3 == 2 { 1.0 } else { 0.0 });
        let found = (found[0].rule.as_str(), delay(&found, "crash-loop", began_ms));
        assert!(
            found.0 == "crash-loop" && found.1.is_some_and(|delay| delay <= 30.max(3 * seconds)),
            "{seconds} s: {found:?}"
        );
        let mut feed = Feed::new(SignalKind::Availability, "image-pull", SignalUnit::Ratio, seconds);
        let found = feed.minutes(10, |_, point| point.value = 0.0);
        assert!(found.iter().any(|finding| finding.opens && finding.summary == "image pull fails"), "{seconds} s");
    }
}

#[test]
fn a_group_of_processes_that_was_seen_once_is_no_service() {
    for seconds in INTERVALS {
        for alive in 0..=3 {
            let mut feed = Feed::new(SignalKind::Availability, "processes", SignalUnit::Ratio, seconds);
            let found = feed.minutes(90, |step, point| point.value = if step < alive { 1.0 } else { 0.0 });
            assert!(seconds == 60 && alive == 3 || found.is_empty(), "{alive} points at {seconds} s: {:?}", found[0]);
        }
    }
}

#[test]
fn a_container_that_was_killed_long_ago_is_no_news_and_one_that_is_killed_now_is() {
    for seconds in INTERVALS {
        let of = |found: &[Finding]| found.iter().filter(|finding| finding.rule == "oom-kill" && finding.opens).count();
        let new = || Feed::new(SignalKind::Restarts, "oom-killed", SignalUnit::Number, seconds);
        let mut feed = new();
        let old = feed.minutes(90, |_, point| point.value = 2.0);
        assert!(old.is_empty(), "{seconds} s: {:?}", old[0]);
        // A part of the members is not seen for a while.
        let pause = feed.minutes(5, |step, point| point.value = if step < 3 { 1.0 } else { 2.0 });
        assert!(pause.is_empty(), "{seconds} s: {:?}", pause[0]);
        let began_ms = feed.at_ms;
        let found = feed.minutes(60, |_, point| point.value = 3.0);
        assert!(delay(&found, "oom-kill", began_ms).is_some_and(|delay| delay <= 5.max(seconds)), "{seconds} s");
        assert!(found.iter().all(|finding| finding.since_ms == began_ms + feed.step_ms), "{seconds} s");
        assert!(feed.signal.bad().is_none(), "{seconds} s: over after an hour");
        // The state exists from the first kill on only.
        let mut feed = new();
        feed.signal.expect_events();
        assert!(of(&feed.minutes(2, |_, point| point.value = 1.0)) > 0, "{seconds} s");
        let replaced = feed.minutes(5, |_, point| point.value = 0.0);
        assert_eq!((of(&replaced), feed.signal.bad()), (0, None), "{seconds} s");
    }
}
