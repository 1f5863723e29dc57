//! How an entity fails: one example for each rule.

use wardroom_diagnose::{FEATURES, RULES, Weights, rank};
use wardroom_domain::{EntityKind, EventKind, SignalKind};

use crate::estate::{Estate, entity, service};

/// (Rule, estate whose entity `x` fails that way, kind of the entity).
fn examples() -> Vec<(&'static str, EntityKind, Estate)> {
    use EntityKind as E;
    use SignalKind as S;
    let x = |kind: E| entity(kind, "x");
    let new = Estate::new;
    let saturated = |kind: E, resource: &str| new().own(&x(kind), S::Saturation, resource, 0.97, 0.3);
    let base = service("base");
    let setting: &[(&str, &str)] = &[("key", "timeout"), ("from", "1000"), ("to", "5")];
    let queue = entity(E::Queue, "jobs");
    let filling = |estate: Estate| estate.own(&queue, S::Queue, "depth", 4000.0, 3.0).uses(&x(E::Service), &queue);
    vec![
        (
            "bad-setting",
            E::Service,
            new().failing(&x(E::Service), 0.5).event(&x(E::Service), EventKind::Setting, -5, setting),
        ),
        ("certificate-expiry", E::Certificate, new().own(&x(E::Certificate), S::Expiry, "", 86_400.0, 2_000_000.0)),
        ("oom-kill", E::Service, saturated(E::Service, "memory").event(&x(E::Service), EventKind::OomKill, 20, &[])),
        ("crash-loop", E::Service, new().own(&x(E::Service), S::Restarts, "", 4.0, 0.0)),
        ("disk-full", E::Filesystem, saturated(E::Filesystem, "disk")),
        ("exporter-down", E::Database, new().own(&x(E::Database), S::Availability, "exporter", 0.0, 1.0)),
        ("database-connections-exhausted", E::Database, saturated(E::Database, "connections")),
        ("database-lock", E::Database, new().own(&x(E::Database), S::Saturation, "locks", 40.0, 2.0)),
        ("cache-memory-full", E::Cache, saturated(E::Cache, "memory")),
        ("consumer-stopped", E::Service, filling(new().own(&x(E::Service), S::Traffic, "", 0.0, 9.0))),
        (
            "consumer-slow",
            E::Service,
            filling(new().slow(&x(E::Service), 2.0).own(&x(E::Service), S::Traffic, "", 4.0, 9.0)),
        ),
        (
            "queue-full",
            E::Service,
            new().failing(&base, 0.4).slow(&x(E::Service), 1.5).call(&x(E::Service), &base, S::Traffic, 2.0, 40.0),
        ),
        ("instance-down", E::Service, new().own(&x(E::Service), S::Availability, "", 0.0, 1.0)),
        ("traffic-surge", E::Service, saturated(E::Service, "cpu").own(&x(E::Service), S::Traffic, "", 90.0, 20.0)),
        ("connection-leak", E::Service, saturated(E::Service, "connections")),
        ("pool-exhausted", E::Service, new().own(&x(E::Service), S::Queue, "pending", 40.0, 0.0)),
        ("descriptor-leak", E::Service, saturated(E::Service, "file-descriptors")),
        ("node-saturated", E::Node, saturated(E::Node, "memory")),
        ("memory-leak", E::Service, saturated(E::Service, "memory")),
        ("cpu-hog", E::Service, saturated(E::Service, "cpu").own(&x(E::Service), S::Traffic, "", 20.0, 20.0)),
    ]
    .into_iter()
    .chain(examples_of_symptoms())
    .collect()
}

/// Examples of rules that need less evidence, or evidence at several entities.
fn examples_of_symptoms() -> Vec<(&'static str, EntityKind, Estate)> {
    use EntityKind as E;
    use SignalKind as S;
    let x = |kind: E| entity(kind, "x");
    let new = Estate::new;
    let base = service("base");
    vec![
        ("queue-growing", E::Queue, new().own(&x(E::Queue), S::Queue, "depth", 4000.0, 3.0)),
        ("dependency-unavailable", E::External, new().healthy(&base).call(&base, &x(E::External), S::Errors, 0.9, 0.0)),
        (
            "timeout-setting",
            E::Service,
            new().failing(&x(E::Service), 0.4).healthy(&base).own(&base, S::Traffic, "", 20.0, 20.0).call(
                &x(E::Service),
                &base,
                S::Errors,
                0.4,
                0.0,
            ),
        ),
        (
            "callee-unreachable",
            E::Service,
            new().failing(&x(E::Service), 0.9).healthy(&base).own(&base, S::Traffic, "", 2.0, 20.0).call(
                &x(E::Service),
                &base,
                S::Errors,
                0.9,
                0.0,
            ),
        ),
        (
            "calls-missing",
            E::Service,
            new().healthy(&x(E::Service)).own(&x(E::Service), S::Traffic, "", 20.0, 20.0).healthy(&base).call(
                &x(E::Service),
                &base,
                S::Traffic,
                0.1,
                20.0,
            ),
        ),
        ("container-not-starting", E::Workload, new().own(&x(E::Workload), S::Availability, "image-pull", 0.0, 1.0)),
        (
            "network-delay",
            E::Service,
            new().slow(&x(E::Service), 0.8).healthy(&base).call(&x(E::Service), &base, S::Latency, 0.8, 0.05),
        ),
        ("slow-dependency", E::Service, new().slow(&x(E::Service), 1.0)),
        ("failing-requests", E::Service, new().failing(&x(E::Service), 0.4)),
        ("error-log-burst", E::Service, new().healthy(&x(E::Service)).log(&x(E::Service), "boom <*>", 30.0, Some(0.0))),
        (
            "bad-deployment",
            E::Service,
            new().own(&x(E::Service), S::Other, "", 90.0, 20.0).event(
                &x(E::Service),
                EventKind::Deployment,
                -30,
                &[("version", "2.0")],
            ),
        ),
        ("unknown", E::Service, new().own(&x(E::Service), S::Other, "", 90.0, 20.0)),
    ]
}

#[test]
fn every_rule_names_its_mechanism() {
    for (rule, kind, estate) in examples() {
        let diagnosis = estate.check(&entity(kind, "x"), rule);
        let best = diagnosis.best().unwrap();
        assert!(!best.next_checks.is_empty() && best.reasoning.starts_with("x "), "{best:?}");
    }
}

#[test]
fn every_rule_has_an_example() {
    let examples = examples();
    for rule in RULES {
        assert!(examples.iter().any(|(id, ..)| *id == rule.id), "{}", rule.id);
    }
}

#[test]
fn a_mechanism_after_a_deployment_keeps_its_name_and_says_the_version() {
    let x = service("x");
    let estate = Estate::new().own(&x, SignalKind::Saturation, "memory", 0.97, 0.3);
    let estate = estate.event(&x, EventKind::Deployment, -60, &[("version", "2.0")]);
    let diagnosis = estate.check(&x, "memory-leak");
    assert_eq!(diagnosis.best().unwrap().deployment.as_deref(), Some("2.0"));
}

#[test]
fn descriptors_that_waiting_requests_hold_are_no_leak() {
    let x = service("x");
    let held = |estate: Estate| estate.own(&x, SignalKind::Saturation, "file-descriptors", 0.7, 0.05);
    held(Estate::new().slow(&x, 1.0)).check(&x, "slow-dependency");
    // Requests that still wait are in no latency yet.
    held(Estate::new().slow(&x, 0.6)).check(&x, "slow-dependency");
    held(Estate::new().slow(&x, 0.3)).check(&x, "descriptor-leak");
    held(Estate::new().failing(&x, 0.5)).check(&x, "descriptor-leak");
}

#[test]
fn a_setting_is_named_with_both_values() {
    let x = service("x");
    let estate = Estate::new().failing(&x, 0.5);
    let attributes = [("key", "k"), ("from", "1000"), ("to", "5")];
    let diagnosis = estate.event(&x, EventKind::Setting, -3, &attributes).check(&x, "bad-setting");
    assert_eq!(diagnosis.best().unwrap().setting, Some(("k".into(), "1000".into(), "5".into())));
    let late = Estate::new().failing(&x, 0.5).event(&x, EventKind::Setting, 300, &attributes);
    late.check(&x, "failing-requests");
}

#[test]
fn a_crash_loop_by_waiting_reason_is_not_merely_down() {
    let x = entity(EntityKind::Workload, "x");
    let estate = Estate::new().own(&x, SignalKind::Availability, "replicas", 0.0, 1.0);
    estate.own(&x, SignalKind::Availability, "crash-loop", 0.0, 1.0).check(&x, "crash-loop");
}

#[test]
fn connections_that_full_workers_hold_are_no_leak() {
    let x = service("x");
    let estate = Estate::new().slow(&x, 1.0).own(&x, SignalKind::Saturation, "connections", 0.97, 0.3);
    estate.own(&x, SignalKind::Saturation, "worker-threads", 1.0, 0.2).check(&x, "pool-exhausted");
}

#[test]
fn a_full_pool_is_a_leak_only_if_requests_do_not_hold_it() {
    let (x, base) = (service("x"), service("base"));
    let full = || Estate::new().slow(&x, 1.0).own(&x, SignalKind::Saturation, "connection-pool", 0.98, 0.2);
    full().check(&x, "pool-exhausted");
    full().healthy(&base).calls(&x, &base).check(&x, "connection-leak");
    // Requests that wait for a connection are in flight.
    let waiting = full().own(&x, SignalKind::Saturation, "in-flight", 60.0, 3.0);
    waiting.healthy(&base).calls(&x, &base).check(&x, "connection-leak");
}

#[test]
fn failing_calls_to_a_callee_that_does_not_count_its_requests_say_nothing_of_timeouts() {
    let (x, base) = (service("x"), service("base"));
    let estate = Estate::new().failing(&x, 0.4).healthy(&base);
    estate.call(&x, &base, SignalKind::Errors, 0.4, 0.0).check(&x, "failing-requests");
}

#[test]
fn a_queue_that_lost_its_consumers_says_so() {
    let queue = entity(EntityKind::Queue, "jobs");
    let estate = Estate::new().own(&queue, SignalKind::Queue, "depth", 4000.0, 3.0);
    let diagnosis = estate.own(&queue, SignalKind::Other, "consumers", 0.0, 2.0).check(&queue, "consumer-stopped");
    let best = diagnosis.best().unwrap();
    assert!(best.reasoning.starts_with("jobs has no consumer any more"), "{diagnosis:#?}");
    assert!(best.reservation.is_some(), "to restart the queue does not bring its consumers back");
}

#[test]
fn how_long_after_the_onset_a_deployment_counts_depends_on_the_interval() {
    let x = service("x");
    let blamed = |interval_ms: i64, seconds_after: i64| {
        let mut estate = Estate::new().own(&x, SignalKind::Saturation, "memory", 0.97, 0.3);
        estate.0.signals[0].interval_ms = interval_ms;
        let estate = estate.event(&x, EventKind::Deployment, seconds_after, &[("version", "2.0")]);
        estate.diagnose().best().unwrap().deployment.is_some()
    };
    assert!(blamed(1000, 10) && !blamed(1000, 40));
    assert!(blamed(30_000, 55) && !blamed(30_000, 70));
    assert!(blamed(60_000, 110) && !blamed(60_000, 130));
    assert!(!blamed(600_000, 200), "the tolerance is bounded");
}

/// A queue behind requests, whose consumer takes long for each message: producers are refused, and what differs most
/// is at the queue.
fn queue_with_a_slow_consumer() -> Estate {
    let (producer, queue, consumer) = (service("producer"), service("buffer"), service("consumer"));
    Estate::new()
        .failing(&queue, 0.94)
        .own(&queue, SignalKind::Queue, "depth", 60.0, 0.0)
        .own(&queue, SignalKind::Other, "depth", 60.0, 0.35)
        .own(&queue, SignalKind::Traffic, "", 19.4, 74.8)
        .own(&queue, SignalKind::Logs, "", 9.2, 0.0)
        .log(&queue, "message refused", 421.0, Some(0.0))
        .call(&producer, &queue, SignalKind::Errors, 0.9, 0.0)
        .healthy(&producer)
        .own(&consumer, SignalKind::Latency, "median", 1.355, 0.0068)
        .own(&consumer, SignalKind::Traffic, "", 1.2, 23.2)
        .call(&consumer, &queue, SignalKind::Traffic, 0.4, 52.2)
        .call(&consumer, &queue, SignalKind::Errors, 0.0, 0.0)
        .call(&consumer, &queue, SignalKind::Latency, 0.03, 0.004)
        .log(&consumer, "message took long", 38.0, Some(0.0))
}

#[test]
fn a_consumer_that_falls_behind_is_not_explained_by_its_full_queue() {
    queue_with_a_slow_consumer().check(&service("consumer"), "queue-full");
}

#[test]
fn no_consumer_takes_from_a_queue_that_is_down() {
    let queue = service("buffer");
    queue_with_a_slow_consumer().own(&queue, SignalKind::Availability, "", 0.0, 1.0).check(&queue, "instance-down");
    // Nor from one that answers with errors.
    let (producer, broker, consumer) = (service("producer"), entity(EntityKind::Queue, "broker"), service("consumer"));
    let estate = Estate::new().failing(&broker, 0.9).healthy(&producer).healthy(&consumer);
    let estate = estate
        .call(&producer, &broker, SignalKind::Errors, 0.9, 0.0)
        .own(&consumer, SignalKind::Traffic, "", 0.5, 20.0)
        .call(&consumer, &broker, SignalKind::Errors, 0.9, 0.0)
        .call(&consumer, &broker, SignalKind::Traffic, 0.5, 20.0);
    assert_eq!(estate.diagnose().best().unwrap().entity, broker);
}

#[test]
fn a_worker_that_hangs_has_stopped_although_its_last_messages_were_slow() {
    let (queue, worker) = (entity(EntityKind::Queue, "jobs"), service("worker"));
    let estate = Estate::new()
        .own(&queue, SignalKind::Queue, "depth", 4000.0, 3.0)
        .own(&worker, SignalKind::Latency, "", 9.0, 0.1)
        // Its health is still asked for.
        .own(&worker, SignalKind::Traffic, "", 0.2, 20.0)
        .call(&worker, &queue, SignalKind::Traffic, 0.0, 20.0);
    estate.check(&worker, "consumer-stopped");
}

/// Calls of `front` to all of its callees wait and fail; one of them takes that long itself.
fn front_with_one_pool(slow: f64) -> Estate {
    let (front, slow_one) = (service("front"), service("payments"));
    let mut estate = Estate::new()
        .own(&front, SignalKind::Errors, "", 0.803, 0.0)
        .own(&front, SignalKind::Latency, "", 3.97, 0.097)
        .own(&front, SignalKind::Latency, "median", 2.494, 0.063)
        .own(&front, SignalKind::Traffic, "", 36.5, 37.0)
        .own(&slow_one, SignalKind::Errors, "", 0.0, 0.0)
        .own(&slow_one, SignalKind::Latency, "", slow * 1.72, 0.04)
        .own(&slow_one, SignalKind::Latency, "median", slow, 0.024)
        .own(&slow_one, SignalKind::Traffic, "", 36.6, 37.0)
        .call(&front, &slow_one, SignalKind::Latency, 2.459, 0.048)
        .call(&front, &slow_one, SignalKind::Traffic, 36.5, 37.0)
        .call(&front, &slow_one, SignalKind::Errors, 0.337, 0.0);
    for callee in ["basket", "catalogue"].map(service) {
        estate = estate
            .healthy(&callee)
            .own(&callee, SignalKind::Traffic, "", 36.5, 37.0)
            .call(&front, &callee, SignalKind::Latency, 0.993, 0.034)
            .call(&front, &callee, SignalKind::Traffic, 36.5, 37.0)
            .call(&front, &callee, SignalKind::Errors, 0.39, 0.0);
    }
    estate
}

#[test]
fn a_slow_callee_holds_up_the_calls_to_all_others() {
    let slow = front_with_one_pool(0.857).check(&service("payments"), "slow-dependency");
    // Nothing is said of the others, whose callers wait elsewhere.
    assert!(slow.causes.iter().all(|cause| cause.confidence < 0.5 || cause.entity == service("payments")), "{slow:#?}");
    // A slow one that is hardly ever called holds no connections.
    let (front, seldom) = (service("front"), service("seldom"));
    let leak = front_with_one_pool(0.025)
        .own(&seldom, SignalKind::Latency, "", 2.0, 0.04)
        .own(&seldom, SignalKind::Traffic, "", 0.05, 0.05)
        .call(&front, &seldom, SignalKind::Latency, 2.5, 0.05)
        .call(&front, &seldom, SignalKind::Traffic, 0.05, 0.05);
    let link_out = |estate: &Estate| {
        let ranked = rank(&estate.0, &Weights::builtin().unwrap());
        let index = FEATURES.iter().position(|name| *name == "link-out").unwrap();
        ranked.iter().find(|ranked| ranked.entity == front).unwrap().features[index]
    };
    assert!(link_out(&leak) > 0.5 && link_out(&front_with_one_pool(0.857)) < 0.1);
    // Where all callees are about as fast as before, the caller itself is at fault.
    front_with_one_pool(0.025).check(&service("front"), "connection-leak");
}

#[test]
fn a_hub_of_many_callees_is_diagnosed_at_once() {
    let front = service("front");
    let mut estate = Estate::new().failing(&front, 0.3);
    for callee in (0..400).map(|number| service(&format!("callee-{number}"))) {
        estate = estate.slow(&callee, 0.5).call(&front, &callee, SignalKind::Latency, 0.6, 0.05);
    }
    let begin = std::time::Instant::now();
    estate.diagnose();
    assert!(begin.elapsed().as_secs() < 10, "{:?}: more than the square of the callees", begin.elapsed());
}
