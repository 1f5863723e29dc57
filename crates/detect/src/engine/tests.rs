use wardroom_domain::{Deployment, LogEntry, SignalKind, Span, SpanKind};
use wardroom_signals::Catalog;

use super::*;
use crate::Config;

fn engine() -> Engine {
    Engine::new(Config::default(), Catalog::builtin())
}

/// Feeds values to a `_total` series, one every 15 s; returns (value, expected) of the reported anomalies.
fn anomalies(temporality: &[(&str, &str)], values: &[f64]) -> Vec<(f64, f64)> {
    let mut engine = engine();
    let labels: Vec<_> = [("__name__", "sent_total"), ("service", "a")].iter().chain(temporality).copied().collect();
    engine.add_series(&Labels::of(&labels), None);
    let mut reported = Vec::new();
    for (value, step) in values.iter().zip(1_i64..) {
        engine.observe(SeriesId(0), &[Sample { ts_ms: step * 15_000, value: *value }]);
        reported.extend(engine.finish_batch().anomalies.iter().map(|found| (found.value, found.expected.round())));
    }
    reported
}

#[test]
fn scores_the_values_of_a_delta_counter_unchanged() {
    let steady: Vec<f64> = [147.0, 153.0].repeat(20);
    let counted: Vec<f64> = steady.iter().copied().chain([900.0]).collect();
    assert_eq!(anomalies(&[("__temporality__", "delta")], &counted), [(900.0, 150.0)]);
    let sums = counted.iter().scan(0.0, |sum, value| {
        *sum += value;
        Some(*sum)
    });
    assert_eq!(anomalies(&[], &sums.collect::<Vec<_>>()), [(60.0, 10.0)], "rate per second");
}

/// A service of this many histograms must not stop detection, whatever limit a configuration has.
const MANY_FAMILIES: usize = 100_000;
/// Limit for a step that took 20 s; far above a second, because tests run on busy machines.
const MAX_STEP_SECONDS: u64 = 20;

#[test]
fn many_histogram_families_of_one_service_do_not_take_the_square_of_their_number() {
    let mut engine = engine();
    let started = std::time::Instant::now();
    for index in 0..MANY_FAMILIES {
        let name = format!("m{index}_request_seconds_bucket");
        engine.add_series(&Labels::of(&[("__name__", &name), ("service", "q"), ("le", "+Inf")]), None);
    }
    engine.observe(SeriesId(7), &[Sample { ts_ms: 1000, value: 100.0 }]);
    engine.finish_batch();
    assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
    assert_eq!(engine.size().entities, 1);
}

fn span(kind: SpanKind, end_ms: i64, labels: &[(&str, &str)]) -> Span {
    Span {
        trace_id: [1; 16],
        span_id: [1; 8],
        parent_id: [0; 8],
        kind,
        name: "call".into(),
        start: Timestamp::from_millis(end_ms - 1),
        end: Timestamp::from_millis(end_ms),
        failed: false,
        labels: Labels::of(labels),
    }
}

#[test]
fn spans_and_native_histograms_beyond_the_limits_are_counted() {
    let mut engine = engine();
    for index in 0..12_000 {
        let peer = format!("peer-{index}");
        engine.span(&span(SpanKind::Client, 1, &[("service.name", "a"), ("peer.service", &peer)]));
    }
    assert_eq!(engine.finish_batch().limited, LimitedRecords { span_families: 2000, ..LimitedRecords::default() });
    assert_eq!(engine.finish_batch().limited, LimitedRecords::default());
    assert_eq!(engine.spans.families.len(), 10_000);
}

#[test]
fn a_view_is_read_while_the_engine_works() {
    let mut engine = engine();
    let deployment = |version: &str| Deployment {
        at: Timestamp::from_millis(5),
        service: "a".into(),
        version: version.into(),
        status: "success".into(),
        metadata: Labels::default(),
    };
    engine.observe_deployment(&deployment("1"));
    let view = engine.view();
    engine.observe_deployment(&deployment("2"));
    let (from, to) = (Timestamp::from_millis(0), Timestamp::from_millis(10));
    assert_eq!((view.deployments(from, to).len(), engine.events(from, to).count()), (1, 2));
    assert_eq!(view.watermark_ms(), 5);
}

#[test]
fn spans_measure_a_service_only_where_no_metric_does() {
    let mut engine = engine();
    for name in ["http_requests_total", "http_requests_total"] {
        let code = if engine.known_series() == 0 { "200" } else { "500" };
        engine.add_series(&Labels::of(&[("__name__", name), ("service", "measured"), ("code", code)]), None);
    }
    for second in 1..200_i64 {
        for service in ["measured", "traced"] {
            for offset in 0..20 {
                engine.span(&span(SpanKind::Server, second * 1000 - offset, &[("service.name", service)]));
            }
        }
        for id in [0, 1] {
            engine.observe(SeriesId(id), &[Sample { ts_ms: second * 1000, value: second as f64 * 30.0 }]);
        }
        engine.finish_batch();
    }
    let of = |service: &str, kind: SignalKind| {
        let signals = engine.signals().filter(|(id, _)| id.entity.name == service && id.kind == kind);
        signals.filter(|(_, signal)| signal.history.len() > 3).map(|(id, _)| id.metric.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("traced", SignalKind::Errors), ["spans"]);
    assert_eq!(of("measured", SignalKind::Errors).len(), 1);
    assert_ne!(of("measured", SignalKind::Errors), ["spans"]);
}

#[test]
fn calls_in_spans_are_relations() {
    let mut engine = engine();
    let database = [("service.name", "a"), ("db.system", "postgresql"), ("server.address", "db-1")];
    engine.span(&span(SpanKind::Client, 1000, &database));
    engine.span(&span(SpanKind::Client, 1000, &[("service.name", "a"), ("peer.service", "b")]));
    engine.finish_batch();
    let graph = engine.graph();
    for to in [Entity::service("b"), Entity::named(wardroom_domain::EntityKind::Database, "db-1")] {
        assert!(graph.path(&Entity::service("a"), &to).is_some(), "{to}");
    }
    assert_eq!(graph.path(&Entity::service("b"), &Entity::service("a")), None);
}

#[test]
fn a_log_line_from_the_future_moves_nothing_beyond_its_arrival() {
    let mut engine = engine();
    let line = |at_ms: i64, message: &str| LogEntry {
        at: Timestamp::from_millis(at_ms),
        severity: Severity::High,
        message: message.into(),
        service: "a".into(),
        labels: Labels::default(),
    };
    engine.begin_batch(Some(Timestamp::from_millis(10_000)));
    engine.observe_log(&line(9_000, "settings re-read key=slots from=20 to=1"));
    engine.observe_log(&line(500_000, "from the future"));
    engine.finish_batch();
    assert_eq!(engine.watermark_ms(), 10_000);
    let events: Vec<_> = engine.events(Timestamp::from_millis(0), Timestamp::from_millis(10_000)).collect();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].entity.name.as_str(), events[0].attributes.get("to")), ("a", Some("1")));
}

#[test]
fn points_of_a_gap_of_all_senders_are_not_judged() {
    let mut engine = engine();
    engine.add_series(&Labels::of(&[("__name__", "process_resident_memory_bytes"), ("service", "a")]), None);
    let mut limited = 0;
    let seconds = (0..120_i64).chain(400..460);
    for second in seconds {
        engine.begin_batch(Some(Timestamp::from_millis(second * 1000)));
        engine.observe(SeriesId(0), &[Sample { ts_ms: second * 1000, value: 5.0 }]);
        limited += engine.finish_batch().limited.stalled_points;
    }
    assert!((1..10).contains(&limited), "{limited}");
    assert!(engine.signals().any(|(_, signal)| signal.history.back().is_some_and(|(at_ms, _)| *at_ms > 440_000)));
}

/// Name, labels, first step, value by step.
type PodSeries<'a> = (&'a str, &'a [(&'a str, &'a str)], i64, &'a dyn Fn(i64) -> f64);

/// Feeds series of a pod, one reading every 30 s; returns the rules of the findings that open.
fn rules_of_pod(series: &[PodSeries<'_>]) -> Vec<String> {
    let mut engine = engine();
    for (name, labels, ..) in series {
        let pod = [("__name__", *name), ("namespace", "shop"), ("pod", "web-7d9f6c5b8-x2x4z"), ("container", "main")];
        let target = [("job", "kube-state-metrics"), ("instance", "10.1.1.1:8080")];
        engine.add_series(&Labels::new(pod.into_iter().chain(target).chain(labels.iter().copied()).collect()), None);
    }
    let mut rules = Vec::new();
    for step in 0..60_i64 {
        for ((.., begin, value), id) in series.iter().zip(0_u32..) {
            if step >= *begin {
                engine.observe(SeriesId(id), &[Sample { ts_ms: step * 30_000, value: value(step) }]);
            }
        }
        let found = engine.finish_batch().findings;
        rules.extend(found.into_iter().filter(|finding| finding.opens).map(|finding| finding.rule));
    }
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn what_kubernetes_remembers_of_old_restarts_and_kills_is_no_news() {
    let killed: &[(&str, &str)] = &[("reason", "OOMKilled")];
    let restarts = "kube_pod_container_status_restarts_total";
    let reason = "kube_pod_container_status_last_terminated_reason";
    let old = rules_of_pod(&[(restarts, &[], 0, &|_| 4.0), (reason, killed, 0, &|_| 1.0)]);
    assert_eq!(old, [""; 0]);
    let new =
        rules_of_pod(&[(restarts, &[], 0, &|step| if step < 30 { 4.0 } else { 5.0 }), (reason, killed, 30, &|_| 1.0)]);
    assert_eq!(new, ["oom-kill"]);
    assert_eq!(rules_of_pod(&[("k8s_container_restarts", &[], 0, &|_| 7.0)]), [""; 0]);
    assert_eq!(rules_of_pod(&[("k8s_container_restarts", &[], 0, &|step| (step / 2) as f64)]), ["crash-loop"]);
}

#[test]
fn one_busy_processor_is_no_busy_machine_and_a_file_system_of_an_image_is_not_full() {
    let mut engine = engine();
    let host = [("host.name", "web-1"), ("service.name", "collector")];
    let mut add = |name: &str, labels: &[(&str, &str)]| {
        let labels = [("__name__", name)].into_iter().chain(host).chain(labels.iter().copied()).collect();
        engine.add_series(&Labels::new(labels), None);
    };
    for cpu in ["0", "1", "2", "3"] {
        add("system_cpu_utilization_ratio", &[("cpu", cpu), ("state", "idle")]);
    }
    for cpu in ["0", "1", "2", "3"] {
        add("system_cpu_time_seconds_total", &[("cpu", cpu), ("state", "idle")]);
    }
    add("system_filesystem_utilization_ratio", &[("mountpoint", "/snap/core"), ("type", "squashfs")]);
    add("system_filesystem_utilization_ratio", &[("mountpoint", "/"), ("type", "ext4")]);
    for step in 0..20_i64 {
        let idle_seconds = step as f64 * 30.0;
        let values = [0.0, 1.0, 1.0, 1.0, 7.0, idle_seconds, idle_seconds, idle_seconds, 1.0, 0.4];
        for (value, id) in values.into_iter().zip(0..) {
            engine.observe(SeriesId(id), &[Sample { ts_ms: step * 30_000, value }]);
        }
        let found = engine.finish_batch().findings;
        assert!(found.is_empty(), "{found:?}");
    }
    let values = |resource: &str| -> Vec<f64> {
        let signals = engine.signals().filter(|(id, _)| id.resource == resource);
        signals.filter_map(|(_, signal)| signal.history.back().map(|(_, value)| *value)).collect()
    };
    assert_eq!(values("cpu"), [0.25, 0.25]);
    assert_eq!(values("disk"), [0.4]);
}

#[test]
fn added_replicas_take_a_while_to_be_ready_and_those_that_never_are_is_found() {
    let wanted = |step: i64| if step < 30 { 2.0 } else { 6.0 };
    for (ready_after, expected) in [(3, false), (1000, true)] {
        let ready = move |step: i64| if step < 30 + ready_after { 2.0 } else { 6.0 };
        let deployment: &[(&str, &str)] = &[("deployment", "web")];
        let rules = rules_of_pod(&[
            ("kube_deployment_spec_replicas", deployment, 0, &wanted),
            ("kube_deployment_status_replicas_available", deployment, 0, &ready),
        ]);
        assert_eq!(!rules.is_empty(), expected, "{rules:?}");
    }
    let lost = |step: i64| if step < 30 { 6.0 } else { 2.0 };
    let deployment: &[(&str, &str)] = &[("deployment", "web")];
    let rules = rules_of_pod(&[
        ("kube_deployment_spec_replicas", deployment, 0, &|_| 6.0),
        ("kube_deployment_status_replicas_available", deployment, 0, &lost),
    ]);
    assert_eq!(rules, ["availability"]);
}
