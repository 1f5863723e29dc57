//! Which entity is at fault.

use wardroom_diagnose::{Need, Weights, needs, rank};
use wardroom_domain::{Entity, EntityKind, EventKind, RelationKind, SignalKind};

use crate::estate::{Estate, entity, service};

#[test]
fn an_affected_caller_ranks_below_the_cause() {
    let (front, middle, base) = (service("front"), service("middle"), service("base"));
    let estate = Estate::new().slow(&front, 2.0).slow(&middle, 1.8).slow(&base, 1.7).calls(&front, &middle);
    // The affected service was deployed, which must not make it the cause.
    let estate = estate.calls(&middle, &base).event(&front, EventKind::Deployment, -90, &[("version", "2.0")]);
    let diagnosis = estate.check(&base, "slow-dependency");
    assert!(diagnosis.best().unwrap().confidence >= 0.4, "{diagnosis:#?}");
}

#[test]
fn errors_that_the_callee_returns_are_the_callees() {
    let (front, base) = (service("front"), service("base"));
    let estate = Estate::new().failing(&front, 0.3).failing(&base, 0.5).calls(&front, &base);
    estate.call(&front, &base, SignalKind::Errors, 0.5, 0.0).check(&base, "failing-requests");
}

#[test]
fn a_failing_caller_of_a_healthy_callee_is_the_cause() {
    let (front, middle, base) = (service("front"), service("middle"), service("base"));
    // On a busy machine the callee is a little slower, too.
    for answers in [0.02, 0.03] {
        let estate = Estate::new().failing(&front, 0.6).failing(&middle, 0.6).calls(&front, &middle);
        let estate = estate.own(&base, SignalKind::Errors, "", 0.0, 0.0);
        let estate = estate.own(&base, SignalKind::Latency, "", answers, 0.02);
        let estate = estate.call(&middle, &base, SignalKind::Errors, 0.6, 0.0);
        let estate = estate.call(&middle, &base, SignalKind::Latency, 1.0, 0.02);
        let diagnosis = estate.check(&middle, "connection-leak");
        assert_eq!(diagnosis.best().unwrap().reservation, None);
    }
}

#[test]
fn a_callee_that_cannot_be_seen_neither_acquits_nor_convicts() {
    let (front, hidden) = (service("front"), entity(EntityKind::External, "payments.example"));
    let estate = Estate::new().failing(&front, 0.6).call(&front, &hidden, SignalKind::Errors, 0.6, 0.0);
    let diagnosis = estate.diagnose();
    assert!(diagnosis.causes.iter().all(|cause| cause.reservation.is_some()), "{diagnosis:#?}");
    let entities: Vec<_> = diagnosis.causes.iter().map(|cause| &cause.entity).collect();
    assert!(entities.contains(&&front) && entities.contains(&&hidden), "{diagnosis:#?}");
    assert!(!diagnosis.impact.contains("payments.example"), "{}", diagnosis.impact);
}

#[test]
fn a_hidden_provider_that_fails_its_callers_is_named_before_them() {
    let (front, orders) = (service("front"), service("orders"));
    let hidden = entity(EntityKind::External, "payments.example");
    let estate =
        Estate::new().failing(&front, 0.3).failing(&orders, 0.6).call(&front, &orders, SignalKind::Errors, 0.6, 0.0);
    let estate = estate.call(&orders, &hidden, SignalKind::Errors, 0.6, 0.0);
    let diagnosis = estate.check(&hidden, "dependency-unavailable");
    assert!(diagnosis.best().unwrap().reservation.is_some());
    // Calls that go well acquit it as far as they can.
    let estate = Estate::new().failing(&orders, 0.6).call(&orders, &hidden, SignalKind::Errors, 0.0, 0.0);
    estate.check(&orders, "failing-requests");
}

#[test]
fn a_hidden_provider_that_is_slow_is_named_before_its_caller() {
    let (orders, hidden) = (service("orders"), entity(EntityKind::External, "mail.example"));
    let estate = Estate::new().slow(&orders, 2.0).call(&orders, &hidden, SignalKind::Latency, 1.95, 0.04);
    estate.check(&hidden, "dependency-unavailable");
}

#[test]
fn a_store_at_its_limit_beats_clients_whose_stores_are_unknown() {
    let database = entity(EntityKind::Database, "shop-db");
    let (shop, front) = (service("shop"), service("front"));
    for (resource, value, expected) in [("cpu", 0.99, 0.3), ("lock-waits", 40.0, 0.0), ("connections", 0.99, 0.2)] {
        let mut estate = Estate::new().slow(&shop, 1.5).slow(&front, 1.6).calls(&front, &shop);
        estate = estate.own(&database, SignalKind::Saturation, resource, value, expected);
        estate.0.members = [shop.clone(), front.clone(), database.clone()].into();
        assert_eq!(estate.diagnose().best().unwrap().entity, database, "{resource}");
        // A store that got bad long after its clients explains nothing of them.
        let fact = estate.0.signals.last_mut().unwrap();
        (fact.onset, fact.is_bad) = (Some(crate::estate::at(300)), false);
        let diagnosis = estate.diagnose();
        let place = |entity| diagnosis.causes.iter().position(|cause| cause.entity == entity);
        assert!(place(shop.clone()).is_some(), "{resource}: {diagnosis:#?}");
    }
}

/// Returns the score of an entity in the ranking.
fn score(estate: &Estate, entity: &Entity) -> f64 {
    let ranked = rank(&estate.0, &Weights::builtin().unwrap());
    ranked.iter().find(|found| found.entity == *entity).map_or(0.0, |found| found.score)
}

#[test]
fn a_store_of_another_environment_explains_nothing() {
    let scores = ["prod", "staging"].map(|environment| {
        let mut shop = service("shop");
        let mut database = entity(EntityKind::Database, "shop-db");
        (shop.environment, database.environment) = ("prod".into(), environment.into());
        let mut estate =
            Estate::new().failing(&shop, 0.9).own(&database, SignalKind::Saturation, "lock-waits", 9.0, 0.0);
        estate.0.members = [shop.clone(), database].into();
        score(&estate, &shop)
    });
    assert!(scores[1] > scores[0] + 1.0, "{scores:?}");
}

#[test]
fn one_that_no_longer_calls_what_it_called_ends_its_requests_early() {
    let (front, checkout, payments) = (service("front"), service("checkout"), service("payments"));
    let traffic =
        |estate: Estate, service, value, expected| estate.own(service, SignalKind::Traffic, "", value, expected);
    let estate = traffic(Estate::new().healthy(&front), &front, 40.0, 40.0);
    let estate = traffic(estate.healthy(&checkout), &checkout, 20.0, 20.0);
    let estate = traffic(estate.healthy(&payments), &payments, 0.5, 20.0);
    let diagnosis = estate.calls(&front, &checkout).calls(&checkout, &payments).diagnose();
    assert_eq!(diagnosis.best().unwrap().entity, checkout, "{diagnosis:#?}");
}

#[test]
fn what_it_runs_on_explains_a_service() {
    let (front, node) = (service("front"), entity(EntityKind::Node, "node-1"));
    let estate = Estate::new().slow(&front, 1.0).own(&node, SignalKind::Saturation, "memory", 0.99, 0.4);
    estate.relation(&front, RelationKind::RunsOn, &node).check(&node, "node-saturated");
}

#[test]
fn a_database_without_connections_is_at_fault_and_not_its_callers() {
    let (orders, users) = (service("orders"), service("users"));
    let database = entity(EntityKind::Database, "main-db");
    let estate = Estate::new()
        .failing(&orders, 0.5)
        .failing(&users, 0.4)
        .own(&database, SignalKind::Availability, "", 1.0, 1.0)
        .own(&database, SignalKind::Saturation, "connections", 0.99, 0.3);
    estate.uses(&orders, &database).uses(&users, &database).check(&database, "database-connections-exhausted");
}

#[test]
fn a_pool_at_its_limit_with_a_healthy_database_is_the_clients() {
    let (orders, database) = (service("orders"), entity(EntityKind::Database, "main-db"));
    let estate = Estate::new()
        .failing(&orders, 0.5)
        .own(&orders, SignalKind::Saturation, "connections", 0.98, 0.2)
        .own(&database, SignalKind::Availability, "", 1.0, 1.0)
        .own(&database, SignalKind::Saturation, "connections", 0.3, 0.29);
    estate.uses(&orders, &database).check(&orders, "connection-leak");
}

#[test]
fn a_pool_that_fills_while_the_database_is_locked_is_the_databases() {
    let (orders, database) = (service("orders"), entity(EntityKind::Database, "main-db"));
    let estate = Estate::new()
        .failing(&orders, 0.5)
        .own(&orders, SignalKind::Saturation, "connection-pool", 0.98, 0.1)
        .own(&database, SignalKind::Availability, "", 1.0, 1.0)
        .own(&database, SignalKind::Saturation, "transaction-age", 60.0, 1.2);
    estate.uses(&orders, &database).check(&database, "database-lock");
}

#[test]
fn what_a_probe_sees_is_explained_by_what_is_behind() {
    let (shop, gateway) = (entity(EntityKind::Endpoint, "shop.example"), service("gateway"));
    let estate = Estate::new().own(&shop, SignalKind::Availability, "probe", 0.0, 1.0).own(
        &gateway,
        SignalKind::Availability,
        "",
        0.0,
        1.0,
    );
    estate.calls(&shop, &gateway).check(&gateway, "instance-down");
}

#[test]
fn an_exporter_that_is_down_is_not_its_database() {
    let database = entity(EntityKind::Database, "main-db");
    let estate = Estate::new().own(&database, SignalKind::Availability, "exporter", 0.0, 1.0);
    let diagnosis = estate.check(&database, "exporter-down");
    assert!(diagnosis.best().unwrap().reasoning.contains("nothing says that it is down itself"));
    assert!(!diagnosis.impact.contains("Down"), "{}", diagnosis.impact);
}

#[test]
fn a_consumer_that_stopped_explains_its_queue() {
    let (producer, worker, queue) = (service("shop"), service("worker"), entity(EntityKind::Queue, "jobs"));
    let estate = Estate::new().healthy(&producer).own(&queue, SignalKind::Queue, "depth", 4000.0, 3.0).own(
        &worker,
        SignalKind::Traffic,
        "",
        0.0,
        20.0,
    );
    estate.uses(&producer, &queue).uses(&worker, &queue).check(&worker, "consumer-stopped");
}

#[test]
fn a_queue_whose_consumer_cannot_be_seen_is_named_itself() {
    let (producer, queue) = (service("shop"), entity(EntityKind::Queue, "jobs"));
    let estate = Estate::new().healthy(&producer).own(&queue, SignalKind::Queue, "depth", 4000.0, 3.0);
    estate.uses(&producer, &queue).check(&queue, "queue-growing");
}

#[test]
fn without_any_shift_there_is_no_cause() {
    let (front, base) = (service("front"), service("base"));
    let estate = Estate::new().healthy(&front).healthy(&base).calls(&front, &base);
    let diagnosis = estate.event(&front, EventKind::Deployment, -10, &[("version", "2.0")]).diagnose();
    assert!(diagnosis.causes.iter().all(|cause| cause.confidence < 0.4), "{diagnosis:#?}");
    assert!(Estate::new().diagnose().causes.is_empty());
}

#[test]
fn it_asks_for_what_it_has_not_been_told() {
    let (front, base) = (service("front"), service("base"));
    let mut estate = Estate::new().slow(&front, 2.0).calls(&front, &base);
    let asked = needs(&estate.0, &Weights::builtin().unwrap());
    assert!(asked.contains(&Need::Surroundings(base)) && asked.contains(&Need::Templates(front)), "{asked:?}");
    estate.0.answered.extend(asked);
    assert_eq!(needs(&estate.0, &Weights::builtin().unwrap()), []);
}

#[test]
fn the_order_of_the_facts_does_not_matter() {
    let (front, base) = (service("front"), service("base"));
    let mut estate =
        Estate::new().slow(&front, 2.0).failing(&base, 0.3).calls(&front, &base).log(&base, "x", 9.0, Some(0.0));
    let before = estate.diagnose();
    estate.0.signals.reverse();
    assert_eq!(estate.diagnose(), before);
}

#[test]
fn a_store_of_the_incident_that_is_down_beats_clients_whose_stores_are_unknown() {
    let (shop, database) = (service("shop"), entity(EntityKind::Database, "shop-db"));
    let mut estate = Estate::new().failing(&shop, 0.9).own(&database, SignalKind::Availability, "", 0.0, 1.0);
    estate.0.members = [shop, database.clone()].into();
    estate.check(&database, "instance-down");
}

#[test]
fn waiting_for_several_slow_services_adds_up() {
    let (front, base) = (service("front"), entity(EntityKind::Database, "base"));
    let middle = ["cart", "catalog", "payments"].map(service);
    let mut estate = Estate::new().slow(&front, 2.4).slow(&base, 0.8);
    for service in &middle {
        estate = estate.slow(service, 0.85).calls(&front, service).uses(service, &base);
    }
    estate.check(&base, "slow-dependency");
}

#[test]
fn a_few_failing_requests_elsewhere_do_not_outrank_the_incident() {
    let (notify, borrow) = (service("notify"), service("borrow"));
    let mut estate = Estate::new().own(&notify, SignalKind::Restarts, "", 3.0, 0.0).failing(&borrow, 0.004);
    estate.0.members = [notify.clone()].into();
    estate.check(&notify, "crash-loop");
}

#[test]
fn a_caller_that_gives_up_on_a_slow_callee_is_not_at_fault() {
    let [front, cart, base] = ["front", "cart", "base"].map(service);
    let estate = Estate::new()
        .own(&front, SignalKind::Errors, "", 0.99, 0.0)
        .own(&front, SignalKind::Latency, "", 2.3, 0.04)
        .call(&front, &cart, SignalKind::Errors, 0.8, 0.0)
        .call(&front, &cart, SignalKind::Latency, 2.0, 0.02)
        .slow(&cart, 0.9)
        .call(&cart, &base, SignalKind::Latency, 0.9, 0.01)
        .slow(&base, 0.9);
    estate.check(&base, "slow-dependency");
}

#[test]
fn a_queue_behind_requests_that_refuses_work_is_its_slow_consumers() {
    let [front, jobs, worker] = ["front", "jobs", "worker"].map(service);
    let estate = Estate::new()
        .failing(&front, 0.5)
        .call(&front, &jobs, SignalKind::Errors, 0.95, 0.0)
        .failing(&jobs, 0.95)
        .slow(&worker, 1.4)
        .call(&worker, &jobs, SignalKind::Errors, 0.0, 0.0)
        .call(&worker, &jobs, SignalKind::Traffic, 0.4, 50.0);
    estate.check(&worker, "queue-full");
}

#[test]
fn calls_that_are_not_made_any_more_do_not_acquit_what_they_would_reach() {
    let (catalog, database) = (service("catalog"), entity(EntityKind::Database, "shop-db"));
    let estate = |calls: f64| {
        Estate::new()
            .failing(&catalog, 0.6)
            .own(&catalog, SignalKind::Traffic, "", 20.0, 20.0)
            .own(&database, SignalKind::Saturation, "connections", 0.93, 0.25)
            .call(&catalog, &database, SignalKind::Errors, 0.0, 0.0)
            .call(&catalog, &database, SignalKind::Traffic, calls, 8.0)
    };
    estate(0.1).check(&database, "database-connections-exhausted");
    // As many calls as before that go well: the store is not what fails them.
    assert!(score(&estate(8.0), &catalog) > score(&estate(0.1), &catalog) + 1.0);
}
