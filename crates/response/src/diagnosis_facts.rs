//! Collects the facts of a diagnosis from what detection knows.
//!
//! Signals, events and relations come from its view, which nothing waits for. Log templates and level shifts of series
//! are read under the detectors' lock, only for entities that diagnosis asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wardroom_detect::{Engine, EngineView, Signal};
use wardroom_diagnose::{
    Config, Facts, Need, Normal, SignalFact, SignalShift, TemplateFact, difference_floor, direction_of, unit_of,
};
use wardroom_domain::{Entity, EntityKind, Finding, Incident, Severity, SignalId, SignalKind, Timestamp};
use wardroom_signals::{Direction, EntityGraph, SignalUnit, surroundings};

/// Steps of calls and uses that are followed from the incident's entities to what they depend on.
const MAX_DEPENDENCY_STEPS: u32 = 6;
/// Steps towards those that depend on them.
const MAX_DEPENDENT_STEPS: u32 = 2;
/// Maximum number of entities in the facts.
const MAX_ENTITIES: usize = 400;
/// Maximum number of data stores in the facts whose relation to the incident is unknown.
const MAX_STORES: usize = 20;
/// Such a store got bad at most this long before or after the incident's onset, in ms.
const STORE_MS: i64 = 300_000;
/// Maximum number of log templates of an entity in the facts.
const MAX_TEMPLATES: usize = 50;
/// Maximum number of series with a level shift in the facts.
const MAX_SERIES: usize = 100;
/// Points of a series that have to differ before it counts as shifted.
const SHIFTED_POINTS: u32 = 3;
/// Signals are compared with their past from this long before the incident's onset on: what causes it may show first.
const LEAD_MS: i64 = 120_000;
/// A signal without a point for this many intervals, and for this long, has ended.
const SILENT_INTERVALS: i64 = 4;
/// See [`SILENT_INTERVALS`], in ms.
const SILENT_MS: i64 = 45_000;
/// A signal that ended longer than this before the onset has nothing to do with it, in ms.
const FORGOTTEN_MS: i64 = 600_000;

/// Collects what the view knows about an incident and its surroundings.
pub(crate) fn collect(view: &EngineView, incident: &Incident, config: &Config) -> Facts {
    let graph = view.graph();
    let now = Timestamp::from_millis(view.watermark_ms());
    let members: BTreeSet<Entity> = incident.entities.iter().map(|entity| graph.canonical(entity)).collect();
    let mut near = surroundings(graph, members.clone(), MAX_DEPENDENCY_STEPS, MAX_DEPENDENT_STEPS, MAX_ENTITIES);
    near.entities.extend(bad_stores(view, incident.began_at));
    let mut facts = Facts { began_at: incident.began_at, now, members, relations: near.relations, ..Facts::default() };
    add_signals(view, &near.entities, &mut facts);
    let from = incident.began_at.minus(Duration::from_secs(config.deployment_minutes * 60));
    facts.events = view.events(from, now);
    for event in &mut facts.events {
        event.entity = graph.canonical(&event.entity);
    }
    facts.events.retain(|event| near.entities.contains(&event.entity));
    facts
}

/// Returns the data stores that got bad about when the incident began: who uses them is often unknown to telemetry.
fn bad_stores(view: &EngineView, began_at: Timestamp) -> BTreeSet<Entity> {
    let graph = view.graph();
    let mut found = BTreeSet::new();
    for (id, signal) in view.signals() {
        if !matches!(id.entity.kind, EntityKind::Database | EntityKind::Cache | EntityKind::Queue) {
            continue;
        }
        let Some(bad) = signal.bad().filter(|bad| bad.opens) else { continue };
        if (bad.since_ms - began_at.millis()).abs() <= STORE_MS && found.len() < MAX_STORES {
            found.insert(graph.canonical(&id.entity));
        }
    }
    found
}

/// Adds what diagnosis asks for, as far as it is known.
pub(crate) fn answer(needs: &[Need], view: &EngineView, engine: &Engine, config: &Config, facts: &mut Facts) {
    let graph = view.graph();
    let (mut log_entities, mut series_entities, mut unseen) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for need in needs {
        match need {
            Need::Templates(entity) => log_entities.insert(entity.clone()),
            Need::Series(entity) => series_entities.insert(entity.clone()),
            Need::Surroundings(entity) => unseen.insert(entity.clone()),
        };
    }
    facts.answered.extend(needs.iter().cloned());
    if !log_entities.is_empty() {
        add_templates(engine, graph, &log_entities, config, facts);
    }
    if !series_entities.is_empty() {
        add_series(engine, graph, &series_entities, facts);
    }
    if !unseen.is_empty() {
        let near = surroundings(graph, unseen, 1, 0, MAX_ENTITIES);
        let known: BTreeSet<Entity> = facts.signals.iter().map(|fact| fact.signal.entity.clone()).collect();
        let added: BTreeSet<Entity> = near.entities.difference(&known).cloned().collect();
        add_signals(view, &added, facts);
        for relation in near.relations {
            if !facts.relations.contains(&relation) {
                facts.relations.push(relation);
            }
        }
    }
}

/// Adds the signals of these entities, and of their calls.
fn add_signals(view: &EngineView, entities: &BTreeSet<Entity>, facts: &mut Facts) {
    let graph = view.graph();
    // Most signals of an estate belong to others: each entity is looked up once.
    let mut canonical: BTreeMap<&Entity, Option<Entity>> = BTreeMap::new();
    for (id, signal) in view.signals() {
        let entity = canonical.entry(&id.entity).or_insert_with(|| {
            let entity = graph.canonical(&id.entity);
            entities.contains(&entity).then_some(entity)
        });
        let Some(entity) = entity else { continue };
        let peer = id.peer.as_ref().map(|peer| graph.canonical(peer));
        let name = SignalId { entity: entity.clone(), peer, ..id.clone() };
        if let Some(bad) = signal.bad() {
            facts.findings.push(finding(&name, &signal, &bad));
        }
        facts.signals.extend(signal_fact(name, &signal, facts.began_at, facts.now));
    }
}

fn finding(id: &SignalId, signal: &Signal, bad: &wardroom_detect::Bad) -> Finding {
    let value = signal.history.back().map_or(bad.limit, |(_, value)| *value);
    Finding {
        signal: id.clone(),
        rule: bad.rule.clone(),
        severity: bad.severity,
        opens: bad.opens,
        since_ms: bad.since_ms,
        at_ms: bad.at_ms,
        interval_ms: signal.interval_ms(),
        value,
        expected: bad.expected,
        limit: bad.limit,
        low_is_bad: bad.low_is_bad,
        summary: format!("rule {} holds: {value:.4}, normal is {:.4}", bad.rule, bad.expected),
    }
}

/// Compares a signal with its past; `None` if it has nothing to say about the incident's time.
fn signal_fact(id: SignalId, signal: &Signal, began_at: Timestamp, now: Timestamp) -> Option<SignalFact> {
    let (last_ms, last) = *signal.history.back()?;
    let (began_ms, interval_ms) = (began_at.millis(), signal.interval_ms().max(1));
    if last_ms < began_ms - FORGOTTEN_MS {
        return None;
    }
    let confirmed = signal.bad();
    let is_bad = confirmed.as_ref().is_some_and(|bad| bad.opens);
    let bad = confirmed.or_else(|| signal.suspected());
    let unit = unit_of(&id, last);
    let baseline = signal.baseline();
    // Calls without a past to compare with do not say that they go well.
    if baseline.count == 0 && bad.is_none() && id.peer.is_some() {
        return None;
    }
    // What is reached now and then is normal, too.
    let reach = (baseline.high - baseline.center).max(baseline.center - baseline.low) / 2.0;
    let low = baseline.low.max(0.0);
    let normal = Normal { center: baseline.center, spread: baseline.spread.max(reach), low };
    let lead_ms = LEAD_MS.max(SILENT_INTERVALS * interval_ms);
    let from_ms = bad.as_ref().map_or(began_ms - lead_ms, |bad| bad.since_ms.min(began_ms));
    let points: Vec<(i64, f64)> = signal.history.iter().copied().collect();
    let floor = difference_floor(&id, unit);
    let shift = (baseline.count > 0).then(|| SignalShift::measure(&normal, &points, from_ms, floor)).flatten();
    let silent_ms = (SILENT_INTERVALS * interval_ms).max(SILENT_MS);
    let onset_ms = bad.as_ref().map(|bad| bad.since_ms).or_else(|| shift.and_then(|shift| shift.onset_ms));
    let direction = match &bad {
        Some(bad) if bad.low_is_bad => Direction::Low,
        Some(_) => Direction::High,
        None => direction_of(id.kind),
    };
    Some(SignalFact {
        unit,
        direction,
        value: shift.map_or(last, |shift| shift.value),
        expected: shift.map_or(last, |shift| shift.expected),
        z: shift.map_or(0.0, |shift| shift.z),
        onset: onset_ms.map(Timestamp::from_millis),
        interval_ms,
        is_bad,
        is_gone: last_ms < now.millis() - silent_ms,
        is_internal: false,
        signal: id,
    })
}

/// Adds the log templates of these entities, with the lines since the onset and those that the time before makes
/// expect.
fn add_templates(
    engine: &Engine,
    graph: &EntityGraph,
    entities: &BTreeSet<Entity>,
    config: &Config,
    facts: &mut Facts,
) {
    let began_minute = (facts.began_at.millis() - LEAD_MS / 2).div_euclid(60_000);
    let from = facts.began_at.minus(Duration::from_secs(config.log_minutes * 60));
    let includes = |entity: &Entity| entities.contains(&graph.canonical(entity));
    let mut of_entity: BTreeMap<Entity, usize> = BTreeMap::new();
    for log in engine.templates(from, facts.now, Severity::Info, includes) {
        let entity = graph.canonical(&log.entity);
        let known = of_entity.entry(entity.clone()).or_default();
        *known += 1;
        if *known > MAX_TEMPLATES {
            continue;
        }
        let first_minute = from.millis().max(log.entity_first_ms).div_euclid(60_000);
        let (mut before, mut since) = (0.0, 0.0);
        for (minute, lines) in &log.minutes {
            if *minute >= began_minute {
                since += *lines as f64;
            } else if *minute >= first_minute {
                before += *lines as f64;
            }
        }
        let minutes_before = (began_minute - first_minute) as f64;
        let minutes_since = (facts.now.millis().div_euclid(60_000) - began_minute + 1) as f64;
        // An entity whose logs begin only now has no past to compare with: nothing of it is new.
        let expected = if minutes_before >= 1.0 { before * minutes_since / minutes_before } else { since };
        let at_ms = if since > 0.0 { log.first_ms.max(began_minute * 60_000) } else { log.last_ms };
        facts.templates.push(TemplateFact {
            entity,
            template: log.template,
            example: log.example,
            severity: log.severity,
            count: since,
            expected: Some(expected),
            at: Timestamp::from_millis(at_ms),
        });
    }
}

/// Adds the series of these entities that differ from their past and belong to no signal.
fn add_series(engine: &Engine, graph: &EntityGraph, entities: &BTreeSet<Entity>, facts: &mut Facts) {
    let includes = |entity: &Entity| entities.contains(&graph.canonical(entity));
    for (entity, shift) in engine.level_shifts(SHIFTED_POINTS, includes).into_iter().take(MAX_SERIES) {
        let onset = Timestamp::from_millis(shift.excursion.since_ms);
        if onset.millis() < facts.began_at.millis() - LEAD_MS {
            continue;
        }
        facts.signals.push(SignalFact {
            signal: SignalId {
                entity: graph.canonical(&entity),
                peer: None,
                kind: SignalKind::Other,
                resource: String::new(),
                metric: shift.labels.to_string(),
            },
            unit: SignalUnit::Number,
            direction: Direction::Neutral,
            value: shift.excursion.value,
            expected: shift.excursion.mean,
            z: shift.excursion.z(),
            onset: Some(onset),
            interval_ms: 0,
            is_bad: false,
            is_gone: false,
            is_internal: shift.is_internal,
        });
    }
}
