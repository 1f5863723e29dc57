use super::*;

const LIMIT: f64 = 0.5;
const GOOD: f64 = 0.1;
const BAD: f64 = 0.9;

fn watched(kind: &str, name: &str) -> WatchedSignal {
    let labels = [("__name__", "signal:errors"), ("entity_kind", kind), ("service", name)];
    WatchedSignal { signal: Labels::of(&labels), expected: GOOD, limit: LIMIT, low_is_bad: false, interval_ms: 0 }
}

fn run(values: &[f64], mitigated_ms: Option<i64>, control: Option<f64>) -> VerificationProgress {
    let watched = watched("service", "web");
    let points: Vec<_> = values.iter().zip(1..).map(|(value, second)| (second * 1000, *value)).collect();
    let now_ms = points.last().map_or(0, |(at, _)| *at);
    let observed = [ObservedSignal { watched: &watched, interval_ms: 1000, points }];
    let verification = Verification {
        observed: &observed,
        executed_ms: 0,
        mitigated_ms,
        now_ms,
        waited_ms: now_ms,
        control,
        control_since: None,
    };
    verify(&verification, &Config::default())
}

#[test]
fn fails_without_improvement() {
    assert_eq!(run(&[BAD; 100], None, Some(0.0)), VerificationProgress::Pending(0));
    assert_eq!(run(&[BAD; 121], None, Some(0.0)), VerificationProgress::Failed);
}

#[test]
fn passes_after_a_good_time_and_the_hold() {
    let mut values = vec![BAD; 10];
    values.extend([GOOD; 19]);
    assert_eq!(run(&values, None, Some(0.0)), VerificationProgress::Pending(19));
    values.push(GOOD);
    assert_eq!(run(&values, None, Some(0.0)), VerificationProgress::Mitigated(30_000));
    values.extend([GOOD; 89]);
    assert_eq!(run(&values, Some(30_000), Some(0.0)), VerificationProgress::Pending(89));
    values.push(GOOD);
    assert_eq!(run(&values, Some(30_000), Some(0.0)), VerificationProgress::HoldPassed);
    let without_control = run(&values, Some(30_000), None);
    assert_eq!(without_control, VerificationProgress::Pending(90), "the hold is doubled without a control");
}

#[test]
fn a_breach_in_the_hold_lasts_several_points() {
    for bad in [1, 19] {
        let values = [vec![GOOD; 40], vec![BAD; bad], vec![GOOD; 5]].concat();
        assert_eq!(run(&values, Some(20_000), Some(0.0)), VerificationProgress::Pending(5), "{bad}");
    }
    let values = [vec![GOOD; 40], vec![BAD; 20]].concat();
    assert_eq!(run(&values, Some(20_000), Some(0.0)), VerificationProgress::Failed);
}

#[test]
fn a_relapse_is_found_in_a_short_hold() {
    let watched = watched("service", "web");
    let points: Vec<_> = (1..=8).map(|second| (20_000 + second * 1000, BAD)).collect();
    let observed = [ObservedSignal { watched: &watched, interval_ms: 1000, points }];
    let verification = Verification {
        observed: &observed,
        executed_ms: 0,
        mitigated_ms: Some(20_000),
        now_ms: 28_000,
        waited_ms: 28_000,
        control: Some(0.0),
        control_since: None,
    };
    let short = Config { hold: 10, ..Config::default() };
    assert_eq!(verify(&verification, &short), VerificationProgress::Failed);
    assert_eq!(verify(&verification, &Config::default()), VerificationProgress::Pending(0));
}

#[test]
fn is_not_attributable_if_the_control_was_bad() {
    assert_eq!(run(&[GOOD; 20], None, Some(0.9)), VerificationProgress::NotAttributable);
}

#[test]
fn low_values_are_bad_where_the_signal_says_so() {
    let available = WatchedSignal { low_is_bad: true, limit: 0.99, ..watched("service", "web") };
    assert!(available.is_good(1.0) && !available.is_good(0.5));
    let text = r#"{"signal":{"a":"b"},"expected":0.1,"bad_above":0.5}"#;
    let before: WatchedSignal = serde_json::from_str(text).unwrap();
    assert!((before.limit, before.low_is_bad, before.interval_ms) == (0.5, false, 0));
}

/// What telemetry shows after an action.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    /// The signals become good after a while.
    Helped,
    /// They stay bad.
    DidNotHelp,
    /// They end at the action, while others go on.
    Silent,
    /// All telemetry ends at the action.
    NoTelemetry,
    /// They become good, and bad again for long in the hold.
    Relapsed,
}

/// Verifies second by second until the end; returns all results in order and how long it took in seconds.
fn verify_to_the_end(interval_ms: i64, signals: i64, shown: Shown) -> (Vec<VerificationProgress>, i64) {
    /// Time until the action takes effect, and until a relapse, in ms.
    const EFFECT_MS: i64 = 25_000;
    let config = Config::default();
    let names: Vec<_> = (0..signals).map(|index| watched("service", &format!("web-{index}"))).collect();
    let mut mitigated_ms = None;
    let mut results = Vec::new();
    for second in 0..36_000 {
        let wall_ms = second * 1000;
        let now_ms = if shown == Shown::NoTelemetry { 0 } else { wall_ms };
        let observed: Vec<_> = (0..signals)
            .map(|index| {
                // Each signal has its own phase, and its points come after a grace of one interval.
                let phase_ms = index * interval_ms / signals;
                let times = (-20..).map(|point| point * interval_ms + phase_ms);
                let times = times.take_while(|at_ms| at_ms + interval_ms <= now_ms);
                let is_shown = |at_ms: &i64| *at_ms <= 0 || !matches!(shown, Shown::Silent | Shown::NoTelemetry);
                let value = |at_ms: i64| {
                    let relapse_ms = mitigated_ms.unwrap_or(i64::MAX - 60_000) + 60_000;
                    match shown {
                        Shown::Helped if at_ms > EFFECT_MS => GOOD,
                        Shown::Relapsed if at_ms > EFFECT_MS && at_ms < relapse_ms => GOOD,
                        _ => BAD,
                    }
                };
                let points = times.filter(is_shown).map(|at_ms| (at_ms, value(at_ms))).collect();
                ObservedSignal { watched: &names[index as usize], interval_ms, points }
            })
            .collect();
        let waited_ms = wall_ms - mitigated_ms.unwrap_or(0);
        let control = Some(0.0);
        let observed = &observed;
        let progress = verify(
            &Verification { observed, executed_ms: 0, mitigated_ms, now_ms, waited_ms, control, control_since: None },
            &config,
        );
        match progress {
            VerificationProgress::Pending(_) => continue,
            VerificationProgress::Mitigated(at_ms) if mitigated_ms.is_none() => mitigated_ms = Some(at_ms),
            _ => {
                results.push(progress);
                return (results, second);
            }
        }
        results.push(progress);
    }
    panic!("interval {interval_ms} ms, {signals} signals, {shown:?}: no end after {results:?}");
}

/// Every interval × number of targets × outcome: no undo after a fix that helped, no `mitigated` without evidence.
#[test]
fn verdicts_do_not_depend_on_the_interval() {
    for interval_ms in [1000, 5000, 15_000, 30_000, 60_000] {
        for signals in [1, 2, 5] {
            let label = format!("{interval_ms} ms, {signals} signals");
            let (results, seconds) = verify_to_the_end(interval_ms, signals, Shown::Helped);
            assert!(matches!(results[0], VerificationProgress::Mitigated(_)), "{label}: {results:?}");
            assert_eq!(results[1..], [VerificationProgress::HoldPassed], "{label}");
            assert!(seconds <= 170 + 14 * interval_ms / 1000, "{label}: {seconds} s");
            let (results, seconds) = verify_to_the_end(interval_ms, signals, Shown::DidNotHelp);
            assert_eq!(results, [VerificationProgress::Failed], "{label}");
            assert!(seconds <= 125 + 10 * interval_ms / 1000, "{label}: {seconds} s");
            for shown in [Shown::Silent, Shown::NoTelemetry] {
                let (results, seconds) = verify_to_the_end(interval_ms, signals, shown);
                assert_eq!(results, [VerificationProgress::Inconclusive], "{label}, {shown:?}");
                assert!(seconds <= 180 + 15 * interval_ms / 1000, "{label}, {shown:?}: {seconds} s");
            }
            let (results, _) = verify_to_the_end(interval_ms, signals, Shown::Relapsed);
            assert_eq!(results.last(), Some(&VerificationProgress::Failed), "{label}: {results:?}");
        }
    }
}

/// Points of a signal once in 15 s, in a time range in s.
fn every_15_s(range: std::ops::Range<i64>, value: f64) -> Vec<(i64, f64)> {
    range.step_by(15).map(|second| (second * 1000, value)).collect()
}

fn verify_at(observed: &[ObservedSignal<'_>], now_ms: i64) -> VerificationProgress {
    let verification = Verification {
        observed,
        executed_ms: 0,
        mitigated_ms: None,
        now_ms,
        waited_ms: now_ms,
        control: Some(0.0),
        control_since: None,
    };
    verify(&verification, &Config::default())
}

#[test]
fn instances_that_the_action_replaced_are_judged_by_their_service() {
    let (service, old) = (watched("service", "web"), watched("container", "web-7f9c-x2x"));
    let signal = |watched, points| ObservedSignal { watched, interval_ms: 15_000, points };
    let replaced = signal(&old, every_15_s(-60..10, BAD));
    let good = signal(&service, every_15_s(-60..200, GOOD));
    assert!(matches!(verify_at(&[good.clone(), replaced.clone()], 50_000), VerificationProgress::Pending(_)));
    assert_eq!(verify_at(&[good, replaced.clone()], 120_000), VerificationProgress::Mitigated(120_000));
    let bad = signal(&service, every_15_s(-60..200, BAD));
    assert_eq!(verify_at(&[bad, replaced.clone()], 200_000), VerificationProgress::Failed);
    assert_eq!(verify_at(&[replaced], 200_000), VerificationProgress::Inconclusive, "nothing shows that it helped");
}

#[test]
fn a_service_that_vanished_is_not_good() {
    let (web, cart) = (watched("service", "web"), watched("service", "cart"));
    let labels = [("__name__", "signal:latency"), ("entity_kind", "service"), ("service", "cart")];
    let cart_latency = WatchedSignal { signal: Labels::of(&labels), ..cart.clone() };
    let signal = |watched, points| ObservedSignal { watched, interval_ms: 15_000, points };
    let good = signal(&web, every_15_s(-60..400, GOOD));
    let gone = signal(&cart, every_15_s(-60..1, BAD));
    assert!(matches!(verify_at(&[good.clone(), gone.clone()], 140_000), VerificationProgress::Pending(_)));
    assert_eq!(verify_at(&[good.clone(), gone.clone()], 400_000), VerificationProgress::Inconclusive);
    let latency = signal(&cart_latency, every_15_s(-60..200, GOOD));
    let judged = verify_at(&[good, gone, latency], 150_000);
    assert_eq!(judged, VerificationProgress::Mitigated(150_000), "its other signal is good");
}

#[test]
fn without_watched_signals_nothing_is_shown() {
    assert_eq!(verify_at(&[], 60_000), VerificationProgress::Pending(0));
    assert_eq!(verify_at(&[], 121_000), VerificationProgress::Inconclusive);
}

/// A control that became bad after the action shows that something else is wrong: the action is not blamed and undone.
#[test]
fn a_failure_beside_a_bad_control_is_not_attributed_to_the_action() {
    let watched = watched("service", "web");
    let points = (0..121).map(|second| (second * 1000, BAD)).collect();
    let observed = [ObservedSignal { watched: &watched, interval_ms: 1000, points }];
    for (control_since, expected) in [
        (Some(0.4), VerificationProgress::Failed),
        (Some(0.6), VerificationProgress::NotAttributable),
        (None, VerificationProgress::Failed),
    ] {
        let verification = Verification {
            observed: &observed,
            executed_ms: 0,
            mitigated_ms: None,
            now_ms: 121_000,
            waited_ms: 121_000,
            control: Some(0.0),
            control_since,
        };
        assert_eq!(verify(&verification, &Config::default()), expected);
    }
}
