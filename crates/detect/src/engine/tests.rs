use super::*;

/// Feeds values to a `_total` series, one every 15 s; returns (value, expected) of the reported anomalies.
fn anomalies(temporality: &[(&str, &str)], values: &[f64]) -> Vec<(f64, f64)> {
    let mut engine = Engine::new(Config::default(), EntityRules::default());
    let labels: Vec<_> = [("__name__", "sent_total"), ("service", "a")].iter().chain(temporality).copied().collect();
    engine.add_series(&Labels::of(&labels));
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
const MAX_STEP_SECONDS: u64 = 10;

#[test]
fn many_histogram_families_of_one_service_do_not_take_the_square_of_their_number() {
    let mut engine = Engine::new(Config::default(), EntityRules::default());
    let started = std::time::Instant::now();
    for index in 0..MANY_FAMILIES {
        let name = format!("m{index}_seconds_bucket");
        engine.add_series(&Labels::of(&[("__name__", &name), ("service", "q"), ("le", "+Inf")]));
    }
    engine.observe(SeriesId(7), &[Sample { ts_ms: 1000, value: 100.0 }]);
    engine.finish_batch();
    assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
    assert_eq!(engine.services[0].families.len(), MANY_FAMILIES);
}

#[test]
fn spans_and_native_histograms_beyond_the_limits_are_counted() {
    let mut engine = Engine::new(Config::default(), EntityRules::default());
    let span = |peer: String| wardroom_domain::Span {
        trace_id: [1; 16],
        span_id: [1; 8],
        parent_id: [0; 8],
        kind: wardroom_domain::SpanKind::Client,
        name: "call".into(),
        start: Timestamp::from_millis(0),
        end: Timestamp::from_millis(1),
        failed: false,
        labels: Labels::of(&[("service.name", "a"), ("peer.service", &peer)]),
    };
    for index in 0..12_000 {
        engine.span(&span(format!("peer-{index}")));
    }
    assert_eq!(engine.finish_batch().limited, LimitedRecords { span_families: 2000, ..LimitedRecords::default() });
    assert_eq!(engine.finish_batch().limited, LimitedRecords::default());
    assert_eq!(engine.spans.families.len(), 10_000);
}

#[test]
fn a_view_is_read_while_the_engine_works() {
    let mut engine = Engine::new(Config::default(), EntityRules::default());
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
    let between = |from: i64, to: i64| (Timestamp::from_millis(from), Timestamp::from_millis(to));
    let (from, to) = between(0, 10);
    assert_eq!((view.deployments(from, to).len(), engine.deployments(from, to).count()), (1, 2));
    assert_eq!(view.watermark_ms(), 5);
}
