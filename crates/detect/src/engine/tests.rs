use super::*;

/// What a series of `_total` says of these values, one every 15 s: (value, expected) of what is unusual.
fn told(temporality: &[(&str, &str)], values: &[f64]) -> Vec<(f64, f64)> {
    let mut engine = Engine::new(Config::default(), EntityRules::default());
    let labels: Vec<_> = [("__name__", "sent_total"), ("service", "a")].iter().chain(temporality).copied().collect();
    engine.add_series(&Labels::of(&labels));
    let mut told = Vec::new();
    for (value, step) in values.iter().zip(1_i64..) {
        engine.observe(SeriesId(0), &[Sample { ts_ms: step * 15_000, value: *value }]);
        told.extend(engine.settle().anomalies.iter().map(|found| (found.value, found.expected.round())));
    }
    told
}

#[test]
fn what_is_counted_between_exports_is_watched_as_it_is() {
    let steady: Vec<f64> = [147.0, 153.0].repeat(20);
    let counted: Vec<f64> = steady.iter().copied().chain([900.0]).collect();
    assert_eq!(told(&[("__temporality__", "delta")], &counted), [(900.0, 150.0)]);
    let sums = counted.iter().scan(0.0, |sum, value| {
        *sum += value;
        Some(*sum)
    });
    assert_eq!(told(&[], &sums.collect::<Vec<_>>()), [(60.0, 10.0)], "the rate of a second");
}
