use std::time::Instant;

use wardroom_domain::{EntityKind, Relation, RelationKind, SignalKind};

use super::*;

/// Limit for what has to take less than 5 s, since tests run without optimisation on busy machines.
const MAX_SECONDS: u64 = 20;
const MINUTE_MS: i64 = 60_000;
const INTERVAL_MS: i64 = 15_000;

fn service(name: &str) -> Entity {
    Entity::service(name)
}

fn relate(graph: &EntityGraph, from: &Entity, kind: RelationKind, to: &Entity) {
    graph.observe(from, &[], &[Relation { from: from.clone(), kind, to: to.clone() }], 0);
}

/// `front` calls `back` and `mail`; `back` uses the database `db`; `batch` uses it, too.
fn estate() -> EntityGraph {
    let graph = EntityGraph::default();
    let db = Entity::named(EntityKind::Database, "db");
    relate(&graph, &service("front"), RelationKind::Calls, &service("back"));
    relate(&graph, &service("front"), RelationKind::Calls, &service("mail"));
    relate(&graph, &service("back"), RelationKind::Uses, &db);
    relate(&graph, &service("batch"), RelationKind::Uses, &db);
    graph
}

fn of_entity(entity: Entity, kind: SignalKind, since_ms: i64) -> Finding {
    let metric = "requests".to_owned();
    Finding {
        signal: SignalId { entity, peer: None, kind, resource: String::new(), metric },
        rule: kind.as_str().to_owned(),
        severity: Severity::High,
        opens: true,
        since_ms,
        at_ms: since_ms + 2 * INTERVAL_MS,
        value: 1.0,
        expected: 0.0,
        limit: 0.5,
        low_is_bad: false,
        interval_ms: INTERVAL_MS,
        summary: "100 % of requests fail".to_owned(),
    }
}

fn errors(name: &str, since_ms: i64) -> Finding {
    of_entity(service(name), SignalKind::Errors, since_ms)
}

fn correlator() -> Correlator {
    Correlator::new(Config::default(), TenantId::main())
}

fn opened(decisions: &[Decision]) -> Option<&Incident> {
    decisions.iter().find_map(|decision| if let Decision::Opened(incident) = decision { Some(incident) } else { None })
}

fn joined(decisions: &[Decision]) -> Option<(&str, &str)> {
    decisions.iter().find_map(|decision| match decision {
        Decision::Joined { key, entity } => Some((key.as_str(), entity.name.as_str())),
        _ => None,
    })
}

/// Observes findings in order; returns the number of incidents that they opened.
fn count_opened(correlator: &mut Correlator, graph: &EntityGraph, findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| opened(&correlator.observe(finding, graph)).is_some()).count()
}

#[test]
fn a_symptom_joins_its_cause_whichever_is_seen_first() {
    let graph = estate();
    let db = of_entity(Entity::named(EntityKind::Database, "db"), SignalKind::Saturation, 0);
    for order in [["front", "back", "db"], ["db", "back", "front"], ["back", "front", "db"]] {
        let mut correlator = correlator();
        let findings = order.map(|name| if name == "db" { db.clone() } else { errors(name, 20_000) });
        assert_eq!(count_opened(&mut correlator, &graph, &findings), 1, "{order:?}");
        assert_eq!(correlator.incidents.values().next().unwrap().members.len(), 3, "{order:?}");
    }
}

#[test]
fn findings_that_continue_change_nothing() {
    let (mut correlator, graph) = (correlator(), estate());
    let mut finding = errors("front", 0);
    assert!(opened(&correlator.observe(&finding, &graph)).is_some());
    for _ in 0..100 {
        finding.at_ms += INTERVAL_MS;
        assert_eq!(correlator.observe(&finding, &graph), []);
    }
}

#[test]
fn a_symptom_that_begins_long_after_the_cause_opens_another_incident() {
    let graph = estate();
    for (minutes, expected) in [(1, 1), (9, 1), (15, 2), (60, 2)] {
        let mut correlator = correlator();
        let mut cause = errors("back", 0);
        assert!(opened(&correlator.observe(&cause, &graph)).is_some());
        // The cause lasts, so that the incident is not quiet.
        cause.at_ms = minutes * MINUTE_MS;
        correlator.observe(&cause, &graph);
        correlator.observe(&errors("front", minutes * MINUTE_MS), &graph);
        assert_eq!(correlator.incidents.len(), expected, "{minutes} minutes");
    }
}

#[test]
fn a_cause_that_became_worse_may_show_later() {
    let (mut correlator, graph) = (correlator(), estate());
    let mut filling = of_entity(Entity::named(EntityKind::Database, "db"), SignalKind::Saturation, 0);
    correlator.observe(&filling, &graph);
    filling.at_ms = 25 * MINUTE_MS;
    filling.severity = Severity::Critical;
    let updated = correlator.observe(&filling, &graph);
    assert!(matches!(&updated[..], [Decision::Updated { severity: Severity::Critical, .. }]), "{updated:?}");
    filling.at_ms = 27 * MINUTE_MS;
    correlator.observe(&filling, &graph);
    let late = correlator.observe(&errors("back", 27 * MINUTE_MS), &graph);
    assert!(joined(&late).is_some(), "{late:?}");
}

#[test]
fn a_finding_that_took_long_belongs_to_what_began_meanwhile() {
    let (mut correlator, graph) = (correlator(), estate());
    assert!(opened(&correlator.observe(&errors("front", 30 * MINUTE_MS), &graph)).is_some());
    let growing = Finding { since_ms: 0, at_ms: 31 * MINUTE_MS, ..errors("back", 0) };
    assert!(joined(&correlator.observe(&growing, &graph)).is_some());
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    correlator.observe(&errors("front", 30 * MINUTE_MS), &graph);
    let ended = Finding { since_ms: 0, at_ms: 29 * MINUTE_MS, ..errors("mail", 0) };
    assert!(opened(&correlator.observe(&ended, &graph)).is_some());
}

#[test]
fn a_dependency_that_fails_later_is_another_fault_if_the_symptom_is_explained() {
    let graph = estate();
    let findings = [errors("mail", 0), errors("front", 10_000), errors("back", 4 * MINUTE_MS)];
    assert_eq!(count_opened(&mut correlator(), &graph, &findings), 2);
    let findings = [errors("front", 0), errors("back", 3 * MINUTE_MS)];
    assert_eq!(count_opened(&mut correlator(), &graph, &findings), 1, "it is the only explanation");
    let findings = [errors("front", 0), errors("back", 20 * MINUTE_MS)];
    assert_eq!(count_opened(&mut correlator(), &graph, &findings), 2, "too late for a cause");
}

#[test]
fn users_of_one_dependency_join_if_they_fail_at_about_the_same_time() {
    let graph = estate();
    for (seconds, expected) in [(5, 1), (60, 1), (240, 2)] {
        let findings = [errors("back", 0), errors("batch", seconds * 1000)];
        assert_eq!(count_opened(&mut correlator(), &graph, &findings), expected, "{seconds} s");
    }
}

#[test]
fn without_known_relations_only_the_same_seconds_join() {
    let graph = EntityGraph::default();
    for (seconds, expected) in [(0, 1), (20, 1), (44, 1), (120, 2), (600, 2)] {
        let findings = [errors("edge", 0), errors("web", seconds * 1000)];
        assert_eq!(count_opened(&mut correlator(), &graph, &findings), expected, "{seconds} s");
    }
    let staging = Entity { environment: "staging".into(), ..service("web") };
    let production = Entity { environment: "prod".into(), ..service("edge") };
    let findings = [staging, production].map(|entity| of_entity(entity, SignalKind::Errors, 0));
    assert_eq!(count_opened(&mut correlator(), &graph, &findings), 2, "another environment");
    let certificate = of_entity(Entity::named(EntityKind::Certificate, "web"), SignalKind::Expiry, 0);
    assert_eq!(count_opened(&mut correlator(), &graph, &[errors("edge", 0), certificate]), 2, "not about requests");
}

#[test]
fn evidence_only_joins_and_only_along_a_path() {
    let (mut correlator, graph) = (correlator(), estate());
    let mut shift = of_entity(Entity::named(EntityKind::Database, "db"), SignalKind::Saturation, 0);
    shift.opens = false;
    assert_eq!(correlator.observe(&shift, &graph), []);
    assert!(opened(&correlator.observe(&errors("back", 5000), &graph)).is_some());
    shift.at_ms += INTERVAL_MS;
    assert_eq!(joined(&correlator.observe(&shift, &graph)).map(|(_, name)| name), Some("db"));
    let other = Finding { opens: false, ..of_entity(service("other"), SignalKind::Errors, 5000) };
    assert_eq!(correlator.observe(&other, &graph), []);
    // Evidence alone does not keep an incident open.
    shift.at_ms += 30 * MINUTE_MS;
    correlator.observe(&shift, &graph);
    assert!(opened(&correlator.observe(&errors("back", 30 * MINUTE_MS), &graph)).is_some());
}

#[test]
fn title_and_severity_follow_the_worst_and_the_most_causal_finding() {
    let (mut correlator, graph) = (correlator(), estate());
    let warning = Finding { severity: Severity::Warning, ..errors("front", 0) };
    let incident = opened(&correlator.observe(&warning, &graph)).cloned().unwrap();
    assert_eq!(incident.title, "front: 100 % of requests fail");
    assert_eq!((incident.services.as_slice(), incident.interval_ms), (["front".to_owned()].as_slice(), INTERVAL_MS));
    let title = |decisions: &[Decision]| {
        decisions.iter().find_map(|decision| match decision {
            Decision::Updated { title, severity, .. } => Some((title.clone(), *severity)),
            _ => None,
        })
    };
    let back = title(&correlator.observe(&errors("back", 5000), &graph));
    assert_eq!(back, Some(("back: 100 % of requests fail".to_owned(), Severity::High)), "worse");
    assert_eq!(title(&correlator.observe(&errors("front", 0), &graph)), None, "as bad, but a symptom");
    let mut db = of_entity(Entity::named(EntityKind::Database, "db"), SignalKind::Saturation, 0);
    db.summary = "100 of 100 connections used".to_owned();
    let nearer = title(&correlator.observe(&db, &graph));
    assert_eq!(nearer, Some(("db: 100 of 100 connections used".to_owned(), Severity::High)));
    let critical = |name: &str| Finding { severity: Severity::Critical, ..errors(name, 0) };
    let symptom = title(&correlator.observe(&critical("front"), &graph));
    assert_eq!(
        symptom,
        Some(("db: 100 of 100 connections used".to_owned(), Severity::Critical)),
        "worse, but a symptom"
    );
    let idle =
        Finding { signal: SignalId { kind: SignalKind::Traffic, ..errors("mail", 0).signal }, ..critical("mail") };
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    correlator.observe(&critical("front"), &graph);
    assert_eq!(title(&correlator.observe(&idle, &graph)), None, "a callee without traffic is no cause");
    let traffic = |name: &str| of_entity(service(name), SignalKind::Traffic, 0);
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    correlator.observe(&traffic("back"), &graph);
    let caller = title(&correlator.observe(&traffic("front"), &graph));
    assert_eq!(caller, Some(("front: 100 % of requests fail".to_owned(), Severity::High)), "callers explain traffic");
    assert_eq!(title(&correlator.observe(&traffic("mail"), &graph)), None);
    let failing = title(&correlator.observe(&errors("mail", 0), &graph));
    assert_eq!(failing, Some(("mail: 100 % of requests fail".to_owned(), Severity::High)), "errors explain traffic");
    let calls = Finding { signal: SignalId { peer: Some(service("x")), ..db.signal.clone() }, ..errors("y", 0) };
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    assert_eq!(opened(&correlator.observe(&calls, &graph)).unwrap().title, "db, calls to x: 100 % of requests fail");
}

#[test]
fn a_quiet_incident_takes_no_later_onset() {
    let (mut correlator, graph) = (correlator(), estate());
    assert!(opened(&correlator.observe(&errors("front", 0), &graph)).is_some());
    assert_eq!(correlator.observe(&errors("front", 3 * MINUTE_MS), &graph), [], "again within the quiet time");
    let later = correlator.observe(&errors("front", 12 * MINUTE_MS), &graph);
    assert!(opened(&later).is_some(), "{later:?}");
    // A signal of one point in ten minutes is not quiet after five minutes.
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    let slow = |since_ms| Finding { interval_ms: 10 * MINUTE_MS, ..errors("front", since_ms) };
    assert!(opened(&correlator.observe(&slow(0), &graph)).is_some());
    assert_eq!(correlator.observe(&slow(20 * MINUTE_MS), &graph), []);
}

#[test]
fn after_release_only_a_later_finding_opens_another_incident() {
    let (mut correlator, graph) = (correlator(), estate());
    let decisions = correlator.observe(&errors("front", 0), &graph);
    let key = opened(&decisions).unwrap().key.clone();
    correlator.release(&key, 100_000);
    let mut continued = errors("front", 0);
    continued.at_ms = 200_000;
    assert_eq!(correlator.observe(&continued, &graph), [], "it began before");
    assert_eq!(correlator.observe(&errors("back", 90_000), &graph), [], "so did its cause");
    let later = correlator.observe(&errors("back", 101_000), &graph);
    assert!(opened(&later).is_some_and(|incident| incident.key != key), "{later:?}");
}

#[test]
fn the_same_finding_always_opens_the_same_incident() {
    let open = || correlator().observe(&errors("a", 7), &estate());
    assert_eq!(open(), open());
}

#[test]
fn saved_and_restored_incidents_take_findings() {
    let graph = estate();
    let mut before = correlator();
    let decisions = before.observe(&errors("front", 0), &graph);
    let incident = opened(&decisions).cloned().unwrap();
    let saved = postcard::from_bytes(&postcard::to_allocvec(&before.save()).unwrap()).unwrap();
    let mut loaded = Correlator::load(Config::default(), TenantId::main(), saved);
    loaded.restore(&incident, 30_000, None);
    let mut restored = correlator();
    restored.restore(&incident, 30_000, None);
    for mut correlator in [loaded, restored] {
        assert_eq!(correlator.observe(&errors("front", 0), &graph), []);
        assert_eq!(joined(&correlator.observe(&errors("back", 5000), &graph)), Some((incident.key.as_str(), "back")));
    }
}

/// An incident that a person has opened is joined like one that a finding has opened, also after a restart.
#[test]
fn an_incident_of_a_person_takes_findings() {
    let graph = estate();
    let (key, title, severity) = ("by-hand".into(), "orders are late".into(), Severity::High);
    let mut incident = Incident { key, title, severity, ..Incident::default() };
    incident.add_entity(&service("front"));
    let mut correlator = correlator();
    correlator.restore(&incident, 0, None);
    assert_eq!(correlator.observe(&errors("front", 10_000), &graph), []);
    assert_eq!(joined(&correlator.observe(&errors("back", 12_000), &graph)), Some(("by-hand", "back")));
    let saved = correlator.save();
    let mut loaded = Correlator::load(Config::default(), TenantId::main(), saved);
    loaded.restore(&incident, 0, None);
    assert_eq!(loaded.observe(&errors("front", 10_000), &graph), []);
}

/// A program that opens incidents by hand does not keep detection from opening one, nor fill the memory.
#[test]
fn incidents_of_persons_do_not_count_towards_the_limit() {
    let config = Config { max_open_incidents: 3, ..Config::default() };
    let mut correlator = Correlator::new(config, TenantId::main());
    for number in 0..50 {
        let (key, trigger) = (format!("by-hand-{number}"), Incident::BY_PERSON.into());
        let mut incident = Incident { key, trigger, ..Incident::default() };
        incident.add_entity(&service(&format!("other-{number}")));
        correlator.restore(&incident, number, None);
    }
    assert!(correlator.incidents.len() <= 12 && correlator.made_by_person.len() <= 12);
    assert_eq!(count_opened(&mut correlator, &EntityGraph::default(), &[errors("front", 10_000)]), 1);
}

#[test]
fn a_reopened_incident_takes_findings_again() {
    let (mut correlator, graph) = (correlator(), estate());
    let decisions = correlator.observe(&errors("front", 0), &graph);
    let incident = opened(&decisions).unwrap().clone();
    correlator.release(&incident.key, 100_000);
    let saved = postcard::to_allocvec(&correlator.save()).unwrap();
    let hour_later = 60 * MINUTE_MS;
    // Also if it was reopened after the state was saved, and the server restarted.
    let loaded = Correlator::load(Config::default(), TenantId::main(), postcard::from_bytes(&saved).unwrap());
    for mut correlator in [correlator, loaded] {
        correlator.restore(&incident, hour_later, None);
        assert_eq!(correlator.observe(&errors("front", hour_later + 10_000), &graph), []);
        let found = correlator.observe(&errors("back", hour_later + 20_000), &graph);
        assert_eq!(joined(&found), Some((incident.key.as_str(), "back")));
    }
}

#[test]
fn findings_follow_a_split() {
    let (mut correlator, graph) = (correlator(), estate());
    let decisions = correlator.observe(&errors("front", 0), &graph);
    let whole = opened(&decisions).unwrap().clone();
    assert!(joined(&correlator.observe(&errors("back", 5000), &graph)).is_some());
    let mut part = Incident {
        key: "part".into(),
        title: "back: 100 % of requests fail".into(),
        severity: Severity::High,
        split_from: Some(whole.key.clone()),
        ..Incident::default()
    };
    part.add_entity(&service("back"));
    correlator.restore(&part, 60_000, None);
    let worse = |name: &str| Finding { severity: Severity::Critical, at_ms: 90_000, ..errors(name, 5000) };
    let key = |decisions: &[Decision]| match decisions {
        [Decision::Updated { key, .. }] => key.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(key(&correlator.observe(&worse("back"), &graph)), "part");
    assert_eq!(key(&correlator.observe(&worse("front"), &graph)), whole.key);
    // Restored once more, nothing moves.
    correlator.restore(&part, 60_000, None);
    let again = Finding { at_ms: 95_000, ..errors("back", 5000) };
    assert_eq!(correlator.observe(&again, &graph), []);
    assert_eq!((correlator.incidents["part"].members.len(), correlator.incidents[&whole.key].members.len()), (1, 1));
}

#[test]
fn an_entity_that_gets_another_name_stays_one() {
    let (mut correlator, graph) = (correlator(), EntityGraph::default());
    let address = Entity::named(EntityKind::External, "10.0.0.7");
    correlator.observe(&of_entity(address.clone(), SignalKind::Errors, 0), &graph);
    let db = Entity::named(EntityKind::Database, "orders-db");
    graph.observe(&db, &["10.0.0.7".to_owned()], &[], 1000);
    assert_eq!(graph.canonical(&address), db, "the graph knows that they are one");
    let hours_later = Finding { at_ms: 200_000, ..of_entity(db, SignalKind::Saturation, 170_000) };
    assert_eq!(correlator.observe(&hours_later, &graph), []);
    assert_eq!(correlator.incidents.len(), 1);
}

#[test]
fn incidents_beyond_the_limit_open_once_others_are_settled() {
    let config = Config { max_open_incidents: 3, ..Config::default() };
    let mut correlator = Correlator::new(config, TenantId::main());
    let graph = EntityGraph::default();
    let at = |index: i64| errors(&format!("service-{index}"), index * 2 * MINUTE_MS);
    let first = correlator.observe(&at(0), &graph);
    let key = opened(&first).unwrap().key.clone();
    assert_eq!(count_opened(&mut correlator, &graph, &[at(1), at(2)]), 2);
    assert_eq!(count_opened(&mut correlator, &graph, &[errors("next", 2 * 2 * MINUTE_MS + 60_000)]), 0);
    assert_eq!(correlator.take_limited(), LimitedFindings { not_opened: 1, not_joined: 0 });
    correlator.release(&key, 0);
    assert_eq!(count_opened(&mut correlator, &graph, &[errors("next", 2 * 2 * MINUTE_MS + 60_000)]), 1);
    let quiet = [errors("another", 60 * MINUTE_MS)];
    assert_eq!(count_opened(&mut correlator, &graph, &quiet), 1, "the others are quiet");
}

#[test]
fn incidents_are_forgotten_after_a_day() {
    let (mut correlator, graph) = (correlator(), EntityGraph::default());
    for day in 0..30 {
        assert_eq!(count_opened(&mut correlator, &graph, &[errors("front", day * (RETENTION_MS + 60_000))]), 1);
    }
    assert!(correlator.incidents.len() <= 2 && correlator.excursions.len() <= 2, "{}", correlator.incidents.len());
}

/// 10 000 firing series within a minute: of one service, of all services that use one database, or of services without
/// known relations.
#[test]
fn ten_thousand_firing_series_make_one_incident() {
    let db = Entity::named(EntityKind::Database, "db");
    let star = EntityGraph::default();
    let names: Vec<Entity> = (0..10_000).map(|index| service(&format!("service-{index}"))).collect();
    names.iter().for_each(|name| relate(&star, name, RelationKind::Uses, &db));
    let one = service("one");
    for (label, graph, is_one_entity) in [
        ("one service", EntityGraph::default(), true),
        ("one database", star, false),
        ("no relations", EntityGraph::default(), false),
    ] {
        let mut correlator = correlator();
        let findings = (0..10_000_usize).map(|index| {
            let entity = if is_one_entity { &one } else { &names[index] };
            let mut finding = of_entity(entity.clone(), SignalKind::Errors, index as i64 * 6);
            finding.signal.metric = format!("metric-{index}");
            finding
        });
        let findings: Vec<Finding> = findings.collect();
        let started = Instant::now();
        assert_eq!(count_opened(&mut correlator, &graph, &findings), 1, "{label}");
        assert_eq!(count_opened(&mut correlator, &graph, &findings), 0, "{label}");
        assert!(started.elapsed().as_secs() < MAX_SECONDS, "{label}: {:?}", started.elapsed());
        let limited = correlator.take_limited().not_joined;
        assert_eq!(limited, if is_one_entity { 0 } else { 10_000 - 200 }, "{label}");
    }
}

/// The worst case of the limits: as many incidents as may be open, and a finding of every service of a tenant.
#[test]
fn many_findings_beside_the_limit_of_incidents_take_little_time() {
    let (mut correlator, graph) = (correlator(), EntityGraph::default());
    let entities: Vec<Entity> =
        (0..2000).map(|index| Entity { namespace: format!("namespace-{index}"), ..service("web") }).collect();
    entities.chunks(2).for_each(|pair| relate(&graph, &pair[0], RelationKind::Calls, &pair[1]));
    let started = Instant::now();
    for entity in &entities {
        correlator.observe(&of_entity(entity.clone(), SignalKind::Errors, 0), &graph);
    }
    assert!(started.elapsed().as_secs() < MAX_SECONDS, "{:?}", started.elapsed());
    assert_eq!(correlator.incidents.len(), 200);
}

#[test]
fn what_begins_after_the_cause_has_ended_is_another_incident() {
    let graph = estate();
    for (minutes, expected) in [(1, 1), (4, 2)] {
        let mut correlator = correlator();
        let mut full = of_entity(Entity::named(EntityKind::Database, "db"), SignalKind::Saturation, 0);
        full.at_ms = MINUTE_MS / 2;
        assert!(opened(&correlator.observe(&full, &graph)).is_some());
        correlator.observe(&of_entity(service("back"), SignalKind::Restarts, minutes * MINUTE_MS), &graph);
        assert_eq!(correlator.incidents.len(), expected, "{minutes} minutes");
    }
}
