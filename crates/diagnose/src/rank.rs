//! Ranks services by how likely they are the cause.

use std::collections::BTreeSet;

use wardroom_domain::canonical::short_hash;
use wardroom_domain::{Cause, CauseKind, Deployment, Diagnosis, Evidence, Severity};

use crate::Config;
use crate::facts::{Aspect, Facts};
use crate::kind::{match_kind, starved_callee};

/// Returns the ranked causes of an incident with their evidence.
pub fn diagnose(facts: &Facts, config: &Config) -> Diagnosis {
    let affected: BTreeSet<&str> = facts
        .signals
        .iter()
        .filter(|fact| fact.bad_since.is_some() && fact.aspect != Aspect::Rate)
        .map(|fact| fact.service.as_str())
        .chain(facts.calls.iter().filter(|call| call.bad_since.is_some()).map(|call| call.caller.as_str()))
        .collect();
    let mut scored: Vec<(f64, &str)> = affected.iter().map(|service| (score(service, facts), *service)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));

    let mut evidence = Vec::new();
    let total: f64 = scored.iter().map(|(score, _)| score).sum();
    let causes: Vec<Cause> = scored
        .iter()
        .take(5)
        .map(|(score, service)| cause(service, *score, total, facts, &mut evidence))
        .filter(|cause| cause.confidence >= config.min_confidence / 4.0)
        .collect();
    let failing: Vec<&str> = affected.iter().filter(|service| facts.is_bad(service, Aspect::Errors)).copied().collect();
    let slow: Vec<&str> = affected.iter().filter(|service| facts.is_bad(service, Aspect::Latency)).copied().collect();
    let severity = if failing.is_empty() { Severity::High } else { Severity::Critical };
    Diagnosis { causes, evidence, severity, impact: impact(&failing, &slow) }
}

/// Returns the service that explains the problems of this one, if there is one.
fn explained_by<'a>(service: &str, facts: &'a Facts) -> Option<&'a str> {
    let by_callee = facts
        .calls
        .iter()
        .find(|call| call.caller == service && call.bad_since.is_some() && facts.is_degraded(&call.callee))
        .map(|call| call.callee.as_str());
    by_callee.or_else(|| {
        let callers = facts.calls.iter().filter(|call| call.callee == service);
        callers.map(|call| call.caller.as_str()).find(|caller| starved_callee(caller, facts) == Some(service))
    })
}

fn score(service: &str, facts: &Facts) -> f64 {
    let mut score = 0.2;
    let mut add = |holds: bool, points: f64| score += if holds { points } else { 0.0 };
    add(facts.is_bad(service, Aspect::Cpu), 0.5);
    add(facts.is_bad(service, Aspect::Memory), 0.5);
    add(facts.is_bad(service, Aspect::Latency), 0.3);
    add(facts.is_bad(service, Aspect::Errors), 0.2);
    add(crate::kind::recent_change(service, facts).is_some(), 0.7);
    add(starved_callee(service, facts).is_some(), 0.4);
    add(facts.unhealthy_calls(service).any(|call| !facts.is_degraded(&call.callee)), 0.3);
    add(facts.logs.iter().any(|log| log.service == service), 0.1);
    if let Some(deployment) = last_deployment(service, facts) {
        let is_recent = facts.began_at.seconds_since(deployment.at) < 300.0;
        add(true, if is_recent { 0.4 } else { 0.15 });
    }
    let affected_callers = facts.calls.iter().filter(|call| call.callee == service && call.bad_since.is_some()).count();
    add(true, 0.1 * affected_callers.min(3) as f64);
    if explained_by(service, facts).is_some() { score * 0.15 } else { score }
}

/// Returns the last deployment of a service before the incident started, or within its first ten seconds.
fn last_deployment<'a>(service: &str, facts: &'a Facts) -> Option<&'a Deployment> {
    let latest = facts.began_at.plus(std::time::Duration::from_secs(10));
    facts
        .deployments
        .iter()
        .filter(|deployment| deployment.service == service && deployment.at <= latest)
        .max_by_key(|deployment| deployment.at)
}

fn cause(service: &str, score: f64, total: f64, facts: &Facts, evidence: &mut Vec<Evidence>) -> Cause {
    let matched = match_kind(service, facts);
    let mut ids = Vec::new();
    let mut cite = |item: Evidence| {
        ids.push(item.id.clone());
        if !evidence.iter().any(|known| known.id == item.id) {
            evidence.push(item);
        }
    };
    for item in signal_evidence(service, facts) {
        cite(item);
    }
    for call in facts.calls.iter().filter(|call| call.caller == service || call.callee == service) {
        let Some(at) = call.bad_since else { continue };
        let summary = format!("calls from {} to {} fail or are slow", call.caller, call.callee);
        cite(Evidence { id: format!("edge:{}>{}", call.caller, call.callee), service: service.into(), at, summary });
    }
    let mut shifted: Vec<_> = facts.series.iter().filter(|fact| fact.service == service).collect();
    shifted.sort_by(|a, b| b.z.abs().total_cmp(&a.z.abs()));
    for fact in shifted.iter().take(3) {
        let id = format!("series:{}", short_hash(&fact.series));
        let summary = format!("{} went from {:.4} to {:.4} (z {:.1})", fact.series, fact.expected, fact.value, fact.z);
        cite(Evidence { id, service: service.into(), at: fact.since, summary });
    }
    let deployment = last_deployment(service, facts);
    if let Some(deployment) = deployment {
        let id = format!("deployment:{}@{}", deployment.service, deployment.version);
        let summary = format!("version {} deployed ({})", deployment.version, deployment.status);
        cite(Evidence { id, service: service.into(), at: deployment.at, summary });
    }
    for change in facts.changes.iter().filter(|change| change.service == service) {
        let id = format!("setting:{}:{}", change.service, change.key);
        let summary = format!("setting {} changed from {} to {}", change.key, change.from, change.to);
        cite(Evidence { id, service: service.into(), at: change.at, summary });
    }
    for log in facts.logs.iter().filter(|log| log.service == service).take(3) {
        let id = format!("log:{}:{}", log.service, short_hash(&log.template));
        let summary = format!("{} × “{}”", log.count, log.example);
        cite(Evidence { id, service: service.into(), at: log.first, summary });
    }
    let setting = matched.change.map(|change| (change.key.clone(), change.from.clone(), change.to.clone()));
    let by_version = setting.is_none() && deployment.is_some();
    Cause {
        service: service.to_owned(),
        kind: matched.kind,
        confidence: confidence(score, total),
        reasoning: reasoning(service, &matched, explained_by(service, facts), deployment.filter(|_| by_version)),
        evidence: ids,
        deployment: deployment.filter(|_| by_version).map(|deployment| deployment.version.clone()),
        setting,
    }
}

/// Returns the confidence: the share of all scores, reduced if the score itself is low.
fn confidence(score: f64, total: f64) -> f64 {
    let share = if total > 0.0 { score / total } else { 0.0 };
    let weight = (score / (score + 0.25)).min(1.0);
    ((share * weight * 1.25).min(0.97) * 100.0).round() / 100.0
}

fn signal_evidence<'a>(service: &'a str, facts: &'a Facts) -> impl Iterator<Item = Evidence> + 'a {
    facts.signals.iter().filter(move |fact| fact.service == service).filter_map(move |fact| {
        let at = fact.bad_since?;
        let (word, summary) = match fact.aspect {
            Aspect::Errors => (
                "errors",
                format!("{:.0} % of requests fail (before: {:.1} %)", fact.value * 100.0, fact.expected * 100.0),
            ),
            Aspect::Latency => {
                ("latency", format!("p99 is {:.0} ms (before: {:.0} ms)", fact.value * 1000.0, fact.expected * 1000.0))
            }
            Aspect::Cpu => (
                "cpu",
                format!("CPU at {:.0} % of its limit (before: {:.0} %)", fact.value * 100.0, fact.expected * 100.0),
            ),
            Aspect::Memory => (
                "memory",
                format!("memory at {:.0} % of its limit (before: {:.0} %)", fact.value * 100.0, fact.expected * 100.0),
            ),
            Aspect::Rate => return None,
        };
        Some(Evidence { id: format!("signal:{service}:{word}"), service: service.to_owned(), at, summary })
    })
}

fn reasoning(
    service: &str,
    matched: &crate::kind::KindMatch<'_>,
    explained: Option<&str>,
    deployment: Option<&Deployment>,
) -> String {
    if let Some(other) = explained {
        return format!("{service} is affected by {other}, which is degraded itself.");
    }
    let mut text = format!("{service} is the origin: {}.", matched.because);
    if let Some(change) = matched.change {
        text.push_str(&format!(" {} went from {} to {}.", change.key, change.from, change.to));
    }
    if let Some(deployment) = deployment.filter(|_| matched.kind != CauseKind::BadSetting) {
        text.push_str(&format!(" Version {} was deployed at {}.", deployment.version, deployment.at));
    }
    text
}

fn impact(failing: &[&str], slow: &[&str]) -> String {
    match (failing.is_empty(), slow.is_empty()) {
        (false, _) => format!("Requests fail at {}.", failing.join(", ")),
        (true, false) => format!("Requests are slow at {}.", slow.join(", ")),
        (true, true) => "No customer impact yet; a resource is near its limit.".to_owned(),
    }
}
