//! Synthetic request histograms of a few services, on a simulated clock.

use std::collections::BTreeMap;

use crate::remote_write::{TimeSeries, series};

const BUCKET_BOUNDS: [&str; 6] = ["0.005", "0.01", "0.1", "0.6", "2.5", "+Inf"];

/// Generates telemetry of a few services, one second per step.
#[derive(Clone, Debug)]
pub struct SyntheticTelemetry {
    /// Time of the last step, in ms since the epoch.
    pub at_ms: i64,
    step: u64,
    /// Cumulative bucket counts of each service.
    totals: BTreeMap<String, [f64; 6]>,
}

impl SyntheticTelemetry {
    /// Starts at `at_ms`.
    pub fn new(at_ms: i64, services: &[&str]) -> Self {
        let totals = services.iter().map(|service| ((*service).to_owned(), [0.0; 6])).collect();
        Self { at_ms, step: 0, totals }
    }

    /// Advances by one second: forty requests to each service, slow for those in `degraded`.
    pub fn next_second(&mut self, degraded: &[&str]) -> Vec<TimeSeries> {
        self.at_ms += 1000;
        self.step += 1;
        let jitter = (self.step % 3) as f64;
        let mut out = Vec::new();
        for (service, totals) in &mut self.totals {
            let slow = degraded.contains(&service.as_str());
            let added =
                if slow { [0.0, 0.0, 0.0, 0.0, 40.0, 40.0] } else { [38.0 - jitter, 40.0, 40.0, 40.0, 40.0, 40.0] };
            for (total, increase) in totals.iter_mut().zip(added) {
                *total += increase;
            }
            for (bound, total) in BUCKET_BOUNDS.iter().zip(*totals) {
                let labels = [
                    ("__name__", "synthetic_request_duration_seconds_bucket"),
                    ("service", service),
                    ("code", "200"),
                    ("le", bound),
                ];
                out.push(series(&labels, total, self.at_ms));
            }
        }
        out
    }
}
