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
