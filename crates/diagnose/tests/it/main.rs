//! Small call graphs with a known cause.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use wardroom_diagnose::{Aspect, Call, Change, Config, Facts, SignalFact, diagnose};
use wardroom_domain::{CauseKind, Deployment, Labels, Timestamp};

const BEGAN_AT_MS: i64 = 1_000_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn bad_signal(service: &str, aspect: Aspect, value: f64) -> SignalFact {
    SignalFact { service: service.into(), aspect, value, expected: 0.01, bad_since: Some(at(BEGAN_AT_MS)) }
}

fn call(caller: &str, callee: &str, is_bad: bool) -> Call {
    let bad_since = is_bad.then(|| at(BEGAN_AT_MS));
    Call { caller: caller.into(), callee: callee.into(), bad_since, rate: 40.0, expected_rate: 40.0 }
}

fn deployment(service: &str, seconds_before: i64) -> Deployment {
    Deployment {
        at: at(BEGAN_AT_MS - seconds_before * 1000),
        service: service.into(),
        version: "2.0".into(),
        status: "success".into(),
        metadata: Labels::default(),
    }
}

fn check(facts: &Facts, service: &str, kind: CauseKind) {
    let diagnosis = diagnose(facts, &Config::default());
    let best = diagnosis.best().unwrap();
    assert_eq!((best.service.as_str(), best.kind), (service, kind), "{diagnosis:#?}");
    assert!(best.confidence >= 0.4, "{best:?}");
    for cause in &diagnosis.causes {
        assert!(!cause.evidence.is_empty());
        for id in &cause.evidence {
            assert!(diagnosis.evidence.iter().any(|item| item.id == *id), "{id} does not exist");
        }
    }
}

fn facts() -> Facts {
    Facts { began_at: at(BEGAN_AT_MS), ..Facts::default() }
}

#[test]
fn an_affected_caller_ranks_below_the_cause() {
    let facts = Facts {
        signals: vec![
            bad_signal("front", Aspect::Latency, 2.0),
            bad_signal("middle", Aspect::Latency, 1.5),
            bad_signal("base", Aspect::Latency, 1.0),
        ],
        calls: vec![call("front", "middle", true), call("middle", "base", true)],
        // The affected service was deployed, which must not make it the cause.
        deployments: vec![deployment("front", 90)],
        ..facts()
    };
    check(&facts, "base", CauseKind::SlowDependency);
}

#[test]
fn a_failing_caller_of_a_healthy_callee_is_the_cause() {
    let facts = Facts {
        signals: vec![bad_signal("front", Aspect::Errors, 0.6), bad_signal("middle", Aspect::Errors, 0.6)],
        calls: vec![call("front", "middle", true), call("middle", "base", true)],
        ..facts()
    };
    check(&facts, "middle", CauseKind::ConnectionLeak);
}

#[test]
fn a_slow_consumer_explains_a_queue_that_rejects() {
    let mut slow_take = call("worker", "queue", false);
    slow_take.rate = 2.0;
    let facts = Facts {
        signals: vec![
            bad_signal("front", Aspect::Errors, 0.4),
            bad_signal("queue", Aspect::Errors, 0.5),
            bad_signal("worker", Aspect::Latency, 1.5),
        ],
        calls: vec![call("front", "queue", true), slow_take],
        ..facts()
    };
    check(&facts, "worker", CauseKind::QueueFull);
}

#[test]
fn resources_and_settings_determine_the_kind() {
    let base = |aspect| Facts {
        signals: vec![
            bad_signal("front", Aspect::Latency, 1.0),
            bad_signal("base", Aspect::Latency, 1.0),
            bad_signal("base", aspect, 0.97),
        ],
        calls: vec![call("front", "base", true)],
        ..facts()
    };
    check(&base(Aspect::Memory), "base", CauseKind::MemoryLeak);
    check(&base(Aspect::Cpu), "base", CauseKind::CpuHog);
    let change = Change {
        service: "base".into(),
        at: at(BEGAN_AT_MS - 3000),
        key: "k".into(),
        from: "1000".into(),
        to: "5".into(),
    };
    let with_change = Facts { changes: vec![change], ..base(Aspect::Errors) };
    check(&with_change, "base", CauseKind::BadSetting);
    let diagnosis = diagnose(&with_change, &Config::default());
    assert_eq!(diagnosis.best().unwrap().setting, Some(("k".into(), "1000".into(), "5".into())));
}

#[test]
fn without_a_breach_there_is_no_cause() {
    let facts = Facts { deployments: vec![deployment("front", 10)], ..facts() };
    assert!(diagnose(&facts, &Config::default()).causes.is_empty());
}
