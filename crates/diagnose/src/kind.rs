//! Determines the kind of fault of a service.

use wardroom_domain::CauseKind;

use crate::facts::{Aspect, Change, Facts};

/// A kind of fault and the evidence for it.
pub(crate) struct KindMatch<'a> {
    pub(crate) kind: CauseKind,
    pub(crate) change: Option<&'a Change>,
    pub(crate) because: &'static str,
}

/// Returns the kind of fault that fits the evidence of a service best.
pub(crate) fn match_kind<'a>(service: &str, facts: &'a Facts) -> KindMatch<'a> {
    let matched = |kind, because| KindMatch { kind, change: None, because };
    if let Some(change) = recent_change(service, facts) {
        return KindMatch {
            kind: CauseKind::BadSetting,
            change: Some(change),
            because: "a setting was changed just before",
        };
    }
    let grown = |aspect: Aspect, factor: f64, floor: f64| {
        facts.signal(service, aspect).is_some_and(|fact| {
            fact.bad_since.is_some() || (fact.value >= floor && fact.value >= factor * fact.expected)
        })
    };
    if grown(Aspect::Memory, 2.0, 0.4) {
        return matched(CauseKind::MemoryLeak, "its memory grew towards the limit");
    }
    if grown(Aspect::Cpu, 2.5, 0.5) {
        return matched(CauseKind::CpuHog, "its CPU use rose to the limit");
    }
    if starved_callee(service, facts).is_some() {
        return matched(CauseKind::QueueFull, "it takes far less work than before from a queue that now rejects more");
    }
    let calls_fail = facts.unhealthy_calls(service).any(|call| !facts.is_degraded(&call.callee));
    if calls_fail {
        return matched(
            CauseKind::ConnectionLeak,
            "its calls are slow or fail although the services it calls are healthy",
        );
    }
    matched(CauseKind::SlowDependency, "its responses are slow or fail and no service it calls explains that")
}

/// Returns the queue-like service that this one no longer drains: this one calls it far less than before and is slow,
/// and the other one has begun to reject requests.
pub(crate) fn starved_callee<'a>(service: &str, facts: &'a Facts) -> Option<&'a str> {
    let slow = facts.is_bad(service, Aspect::Latency);
    facts
        .calls
        .iter()
        .find(|call| {
            let load_dropped = call.expected_rate > 0.0 && call.rate < 0.6 * call.expected_rate;
            call.caller == service && load_dropped && slow && facts.is_bad(&call.callee, Aspect::Errors)
        })
        .map(|call| call.callee.as_str())
}

/// Returns the last announced setting change within ten minutes before the start of the incident.
pub(crate) fn recent_change<'a>(service: &str, facts: &'a Facts) -> Option<&'a Change> {
    let earliest = facts.began_at.minus(std::time::Duration::from_secs(600));
    let latest = facts.began_at.plus(std::time::Duration::from_secs(15));
    facts.changes.iter().rfind(|change| change.service == service && (earliest..=latest).contains(&change.at))
}
