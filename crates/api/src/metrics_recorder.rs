//! The recorder of the process' own metrics, rendered by `/metrics`.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Upper bounds of latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Interval between aggregations of buffered histogram observations without scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder for the whole process.
pub fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS);
    let recorder = builder.expect("the list of buckets is not empty").build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("a metrics recorder is already installed; /metrics stays empty");
    }
    handle
}

/// Aggregates histogram observations periodically. They stay buffered in memory until a scrape of `/metrics` or this
/// task aggregates them, so memory would grow without scrapes.
pub async fn run_upkeep(recorder: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        recorder.run_upkeep();
    }
}
