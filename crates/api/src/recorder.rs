//! What is counted and measured, for `/metrics`.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Upper bounds of latencies, in seconds.
const LATENCIES: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Puts a recorder in force for the whole process.
pub fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new().set_buckets(&LATENCIES);
    let recorder = builder.expect("there is at least one bound").build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("metrics were installed before; /metrics stays empty");
    }
    handle
}

/// What a histogram observed waits in memory until it is counted: by a scrape of /metrics, and where nobody scrapes, here.
pub async fn upkeep(recorder: PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        recorder.run_upkeep();
    }
}
