//! A gauge that jumps: `cargo run -p wardroom-detect --example detect_on_a_series`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_detect::{Config, Engine};
use wardroom_domain::{Labels, Sample, SeriesId};
use wardroom_signals::Catalog;

fn main() {
    let mut engine = Engine::new(Config::default(), Catalog::builtin());
    engine.add_series(&Labels::of(&[("__name__", "queue_depth"), ("service", "worker")]), None);
    let mut anomalies = Vec::new();
    for second in 0..120_i64 {
        let wobble = (second % 7) as f64;
        let value = if second < 100 { 20.0 + wobble } else { 90.0 + wobble };
        engine.observe(SeriesId(0), &[Sample { ts_ms: second * 1000, value }]);
        anomalies.extend(engine.finish_batch().anomalies);
    }
    for anomaly in &anomalies {
        println!(
            "{} {} is {} (expected {:.1}, z {:?})",
            anomaly.at, anomaly.series, anomaly.value, anomaly.expected, anomaly.z
        );
    }
}
