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
