//! Ranks entities by how likely they are the cause, and explains the ranking.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::{Cause, Diagnosis, Entity, Event, EventKind, Evidence, Severity, SignalId, SignalKind};

use crate::Config;
use crate::evidence::{cited_evidence, event_evidence, signal_evidence, template_evidence};
use crate::facts::{Facts, SignalFact, TemplateChange, TemplateFact};
use crate::features::{Features, features, sign};
use crate::need::Need;
use crate::rule::{Match, Rule, Subject};
use crate::rules::RULES;
use crate::suspect::{Case, Suspect};
use crate::weights::Weights;

/// Maximum number of causes in a diagnosis.
const MAX_CAUSES: usize = 5;
/// Maximum number of signals, log templates and findings each that a cause cites besides those of its rule.
const MAX_CITED: usize = 4;
/// Entities below this score show nothing that could be a cause.
const MIN_SCORE: f64 = 0.15;
/// Lost log lines of at least this strength, 0..1, say where requests end.
const TELLING_LOSS: f64 = 0.15;
/// Lack of memory explains CPU that shifted at most this many times as much.
const MEMORY_EXPLAINS: f64 = 4.0;
/// Factor of the features of entities outside of the incident.
const OUTSIDE_FACTOR: f64 = 0.4;
/// Entities that differ less than this from before, 0..1, are no candidates.
const MIN_SIGN: f64 = 0.02;
/// Maximum number of suspects whose details are asked for.
const MAX_NEEDS: usize = 8;

/// One entity in the ranking.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The entity.
    pub entity: Entity,
    /// Weighted sum of its features.
    pub score: f64,
    /// Its share of the soft maximum over all entities, 0..1.
    pub share: f64,
    /// Its features; those of an entity outside of the incident are reduced.
    pub features: Features,
}

/// Ranks all entities of the facts, best first.
pub fn rank(facts: &Facts, weights: &Weights) -> Vec<Ranked> {
    let case = Case::new(facts);
    ranking(&case, weights).into_iter().map(|(_, ranked)| ranked).collect()
}

/// One piece of evidence about an entity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Indicator<'a> {
    /// A signal that differs from its past.
    Signal(&'a SignalFact),
    /// A log template whose rate changed.
    Template(&'a TemplateFact),
}

/// Returns the evidence about one entity, most telling first.
pub fn indicators<'a>(facts: &'a Facts, entity: &Entity) -> Vec<Indicator<'a>> {
    let case = Case::new(facts);
    let suspect = case.suspects.iter().find(|suspect| suspect.entity == entity);
    suspect.map(telling).unwrap_or_default()
}

/// Orders the evidence about a suspect: what is inside it explains its symptoms, so it goes first if it is strong; a
/// log line that belonged to every request and is gone says more than lines that errors of others may cause.
fn telling<'a>(suspect: &Suspect<'a>) -> Vec<Indicator<'a>> {
    let mut weighed: Vec<(f64, Indicator<'a>)> = Vec::new();
    let memory = suspect.shifted(SignalKind::Saturation, &["memory", "heap"]);
    for fact in suspect.own.iter().chain(&suspect.calls).chain(&suspect.called) {
        let strength = fact.strength();
        let inside = match fact.signal.kind {
            // Lack of memory costs CPU (garbage collection, reclaim); busy CPUs take no memory, or little.
            SignalKind::Saturation if fact.signal.resource == "cpu" && is_because_of(memory, fact) => 0.3,
            SignalKind::Saturation | SignalKind::Availability | SignalKind::Restarts | SignalKind::Queue => 1.0,
            SignalKind::Expiry | SignalKind::Freshness | SignalKind::Errors => 0.8,
            SignalKind::Latency => 0.7,
            SignalKind::Traffic | SignalKind::Logs | SignalKind::Other => 0.5,
        };
        let is_cause = matches!(
            fact.signal.kind,
            SignalKind::Saturation | SignalKind::Availability | SignalKind::Restarts | SignalKind::Queue
        );
        let first = if is_cause && fact.is_shifted() { 1.0 } else { 0.0 };
        let size = 1.0 - 1.0 / (1.0 + (fact.badness() - 2.0).max(0.0).ln_1p());
        weighed.push((first + inside * strength.max(0.01) * size, Indicator::Signal(fact)));
    }
    weighed.extend(suspect.templates.iter().map(|(strength, fact)| {
        // Error lines that are gone are good news.
        let is_gone = fact.change() == Some(TemplateChange::Gone)
            && *strength >= TELLING_LOSS
            && !matches!(fact.severity, Severity::High | Severity::Critical);
        (if is_gone { 0.4 + 0.5 * strength } else { 0.4 * strength }, Indicator::Template(fact))
    }));
    weighed.retain(|(weight, _)| *weight > 0.0);
    weighed.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| key(&a.1).cmp(&key(&b.1))));
    weighed.into_iter().map(|(_, indicator)| indicator).collect()
}

/// Returns whether a lack of memory explains that much CPU.
fn is_because_of(memory: Option<&SignalFact>, cpu: &SignalFact) -> bool {
    memory.is_some_and(|memory| cpu.badness() <= MEMORY_EXPLAINS * memory.badness())
}

fn key<'a>(indicator: &Indicator<'a>) -> (Option<&'a SignalId>, Option<&'a str>) {
    match indicator {
        Indicator::Signal(fact) => (Some(&fact.signal), None),
        Indicator::Template(fact) => (None, Some(&fact.template)),
    }
}

/// Returns what would make the ranking surer and is not among the facts, most useful first.
pub fn needs(facts: &Facts, weights: &Weights) -> Vec<Need> {
    let case = Case::new(facts);
    let mut needs = Vec::new();
    for (index, _) in ranking(&case, weights).into_iter().take(MAX_NEEDS) {
        let suspect = &case.suspects[index];
        let unseen = suspect.dependencies.iter().map(|(other, _)| &case.suspects[*other]);
        needs.extend(unseen.filter(|other| !other.is_seen()).map(|other| Need::Surroundings(other.entity.clone())));
        needs.push(Need::Templates(suspect.entity.clone()));
        needs.push(Need::Series(suspect.entity.clone()));
    }
    let mut asked = BTreeSet::new();
    needs.retain(|need| !facts.answered.contains(need) && asked.insert(need.clone()));
    needs
}

/// Returns the ranked causes of an incident with their evidence.
pub fn diagnose(facts: &Facts, config: &Config, weights: &Weights) -> Diagnosis {
    let case = Case::new(facts);
    let mut evidence: BTreeMap<String, Evidence> = BTreeMap::new();
    let mut causes: Vec<Cause> = Vec::new();
    for (index, ranked) in ranking(&case, weights) {
        if causes.len() == MAX_CAUSES || ranked.score < MIN_SCORE {
            break;
        }
        let sure = weights.confidence(ranked.share, ranked.score);
        let limit = causes.last().map_or(0.99, |better| better.confidence);
        let confidence = (sure.min(limit) * 100.0).round() / 100.0;
        if confidence < config.min_confidence / 8.0 && !causes.is_empty() {
            break;
        }
        let cause = cause(&case, index, confidence, config, &mut evidence);
        causes.extend((!cause.evidence.is_empty()).then_some(cause));
    }
    let cited: BTreeSet<&String> = causes.iter().flat_map(|cause| &cause.evidence).collect();
    evidence.retain(|id, _| cited.contains(id));
    let mut evidence: Vec<Evidence> = evidence.into_values().collect();
    evidence.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    let (severity, impact) = impact(&case);
    Diagnosis { causes, evidence, severity, impact }
}

/// Returns the suspects with any sign of a fault, best first; of equal scores by entity.
fn ranking(case: &Case<'_>, weights: &Weights) -> Vec<(usize, Ranked)> {
    let candidates = features(case).into_iter().enumerate().filter(|(index, _)| sign(case, *index) >= MIN_SIGN);
    let mut scored: Vec<(usize, f64, Features)> = candidates
        .map(|(index, features)| {
            let factor = belonging(case, index);
            let features = features.map(|value| value * factor);
            (index, weights.score(&features), features)
        })
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let best = scored.first().map_or(0.0, |(_, score, _)| *score);
    let total: f64 = scored.iter().map(|(_, score, _)| (score - best).exp()).sum();
    let ranked = |(index, score, features): (usize, f64, Features)| {
        let share = (score - best).exp() / total.max(f64::MIN_POSITIVE);
        (index, Ranked { entity: case.suspects[index].entity.clone(), score, share, features })
    };
    scored.into_iter().map(ranked).collect()
}

/// Returns the factor of a suspect's features, 0..1: what is outside of the incident, and of which no rule says that
/// it is bad, is less likely its cause.
fn belonging(case: &Case<'_>, index: usize) -> f64 {
    let suspect = &case.suspects[index];
    let members = &case.facts.members;
    let belongs = members.is_empty()
        || members.contains(suspect.entity)
        || suspect.findings.iter().any(|finding| finding.opens)
        || suspect.own.iter().any(|fact| fact.is_bad);
    if belongs { 1.0 } else { OUTSIDE_FACTOR }
}

/// Returns the rule that fits an entity best.
fn best_rule<'a>(subject: &Subject<'a>) -> Option<(&'static Rule, Match<'a>)> {
    let mut best: Option<(&'static Rule, Match<'a>)> = None;
    for rule in RULES {
        let Some(found) = (rule.matches)(subject) else { continue };
        if best.as_ref().is_none_or(|(_, other)| found.fit > other.fit) {
            best = Some((rule, found));
        }
    }
    best
}

fn cause(
    case: &Case<'_>,
    index: usize,
    confidence: f64,
    config: &Config,
    evidence: &mut BTreeMap<String, Evidence>,
) -> Cause {
    let suspect = &case.suspects[index];
    let began_at = case.facts.began_at;
    let subject = Subject {
        case,
        index,
        suspect,
        onset: suspect.onset().unwrap_or(began_at),
        deployment_seconds: config.deployment_minutes as f64 * 60.0,
    };
    let Some((rule, found)) = best_rule(&subject) else { return Cause::new(suspect.entity.clone(), "unknown", 0.0) };
    let deployment = subject.deployment();
    let mut items: Vec<Evidence> = found.cited.iter().map(|cited| cited_evidence(cited, began_at)).collect();
    let telling = telling(suspect);
    let shifted = telling.iter().filter_map(|indicator| match indicator {
        Indicator::Signal(fact) if fact.is_shifted() => Some(signal_evidence(fact, began_at)),
        _ => None,
    });
    items.extend(shifted.take(2 * MAX_CITED));
    items.extend(deployment.map(event_evidence));
    let near = suspect.events.iter().filter(|event| {
        let before = subject.onset.seconds_since(event.at);
        event.kind != EventKind::Deployment && (-600.0..=subject.deployment_seconds).contains(&before)
    });
    items.extend(near.take(MAX_CITED).map(|event| event_evidence(event)));
    let templates = telling.iter().filter_map(|indicator| match indicator {
        Indicator::Template(fact) => Some(template_evidence(fact)),
        Indicator::Signal(_) => None,
    });
    items.extend(templates.take(MAX_CITED));
    let mut ids: Vec<String> = Vec::new();
    for item in items {
        if !ids.contains(&item.id) {
            ids.push(item.id.clone());
            evidence.insert(item.id.clone(), item);
        }
    }
    let by_version = found.setting.is_none().then_some(deployment).flatten();
    let version = by_version.map(|event| attribute(event, "version"));
    Cause {
        reasoning: reasoning(suspect.entity, rule, &found, version.as_deref()),
        evidence: ids,
        deployment: version,
        setting: found.setting.map(|event| ["key", "from", "to"].map(|name| attribute(event, name)).into()),
        next_checks: rule.next_checks.iter().map(|check| (*check).to_owned()).collect(),
        reservation: reservation(case, index, &found),
        ..Cause::new(suspect.entity.clone(), rule.id, confidence)
    }
}

fn attribute(event: &Event, name: &str) -> String {
    event.attributes.get(name).unwrap_or_default().to_owned()
}

/// Returns why no action may be proposed for this cause: something on the way cannot be seen, and unknown is neither
/// healthy nor broken.
fn reservation(case: &Case<'_>, index: usize, found: &Match<'_>) -> Option<String> {
    let suspect = &case.suspects[index];
    if found.setting.is_some() {
        return None;
    }
    if !suspect.is_seen() && suspect.levels.down < 0.3 && suspect.levels.exporter_down < 0.3 {
        return Some(format!("{} has no signals of its own: only what others see of it is known", suspect.entity));
    }
    if let Some(reservation) = found.reservation {
        return Some(reservation.to_owned());
    }
    let levels = suspect.levels;
    let own = levels.inside.max(levels.down).max(levels.queue).max(levels.exporter_down);
    let (unseen, badness) = case.hidden(index).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (own < 0.3 && badness >= 0.3).then(|| {
        let other = case.suspects[unseen].entity;
        format!("calls from {} to {other} go badly, and {other} has no signals of its own", suspect.entity)
    })
}

fn reasoning(entity: &Entity, rule: &Rule, found: &Match<'_>, version: Option<&str>) -> String {
    let mut text = format!("{entity} {}: {}.", found.says.unwrap_or(rule.says), found.because);
    if let Some(version) = version.filter(|version| !found.because.contains(version)) {
        text.push_str(&format!(" Version {version} began to run shortly before."));
    }
    text
}

/// Returns severity and description of what users see.
fn impact(case: &Case<'_>) -> (Severity, String) {
    let names = |level: fn(&Suspect<'_>) -> f64| {
        // What only others see of it is theirs to say.
        let bad = case.suspects.iter().filter(|suspect| level(suspect) >= 0.2 && !suspect.is_hearsay());
        bad.map(|suspect| suspect.entity.to_string()).take(MAX_CAUSES).collect::<Vec<_>>().join(", ")
    };
    let found = case.facts.findings.iter().map(|finding| finding.severity).max();
    let (failing, down, slow) =
        (names(|suspect| suspect.levels.errors), names(|suspect| suspect.levels.down), names(|s| s.levels.latency));
    let (least, impact) = if !failing.is_empty() {
        (Severity::Critical, format!("Requests fail at {failing}."))
    } else if !down.is_empty() {
        (Severity::High, format!("Down: {down}."))
    } else if !slow.is_empty() {
        (Severity::High, format!("Requests are slow at {slow}."))
    } else {
        (Severity::Warning, "No requests are known to fail or to be slow.".to_owned())
    };
    (found.unwrap_or(least), impact)
}
