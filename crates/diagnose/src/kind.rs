//! In which way a service is at fault.

use wardroom_domain::CauseKind;

use crate::facts::{Aspect, Change, Facts};

/// What points to a kind.
pub(crate) struct Verdict<'a> {
    pub(crate) kind: CauseKind,
    pub(crate) change: Option<&'a Change>,
    pub(crate) because: &'static str,
}

/// The kind that the evidence of one service fits best.
pub(crate) fn kind_of<'a>(service: &str, facts: &'a Facts) -> Verdict<'a> {
    let verdict = |kind, because| Verdict { kind, change: None, because };
    if let Some(change) = recent_change(service, facts) {
        return Verdict {
            kind: CauseKind::BadSetting,
            change: Some(change),
            because: "a setting was changed just before",
        };
    }
    let grown = |aspect: Aspect, factor: f64, least: f64| {
        facts.signal(service, aspect).is_some_and(|fact| {
            fact.bad_since.is_some() || (fact.value >= least && fact.value >= factor * fact.expected)
        })
    };
    if grown(Aspect::Memory, 2.0, 0.4) {
        return verdict(CauseKind::MemoryLeak, "its memory grew towards the limit");
    }
    if grown(Aspect::Cpu, 2.5, 0.5) {
        return verdict(CauseKind::CpuHog, "its processor time went up to the limit");
    }
    if starves(service, facts).is_some() {
        return verdict(CauseKind::QueueFull, "it takes far less work than before from a queue that now refuses more");
    }
    let calls_fail = facts.bad_calls(service).any(|call| !facts.serves_badly(&call.callee));
    if calls_fail {
        return verdict(CauseKind::ConnectionLeak, "its calls wait or fail although the services it calls are well");
    }
    verdict(CauseKind::SlowDependency, "it answers badly and nothing it calls explains that")
}

/// The queue-like service that this one leaves unserved: it calls it far less than before, works slowly
/// itself, and the other one has begun to refuse.
pub(crate) fn starves<'a>(service: &str, facts: &'a Facts) -> Option<&'a str> {
    let slow = facts.bad(service, Aspect::Latency);
    facts
        .calls
        .iter()
        .find(|call| {
            let less = call.usual_rate > 0.0 && call.rate < 0.6 * call.usual_rate;
            call.caller == service && less && slow && facts.bad(&call.callee, Aspect::Errors)
        })
        .map(|call| call.callee.as_str())
}

/// The last announced change of a setting within ten minutes before the trouble.
pub(crate) fn recent_change<'a>(service: &str, facts: &'a Facts) -> Option<&'a Change> {
    let earliest = facts.began_at.minus(std::time::Duration::from_secs(600));
    let latest = facts.began_at.plus(std::time::Duration::from_secs(15));
    facts.changes.iter().rfind(|change| change.service == service && (earliest..=latest).contains(&change.at))
}
