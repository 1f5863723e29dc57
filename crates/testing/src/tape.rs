//! Telemetry on a clock of its own.

use std::collections::BTreeMap;

use crate::wire::{TimeSeries, series};

const BOUNDS: [&str; 6] = ["0.005", "0.01", "0.1", "0.6", "2.5", "+Inf"];

/// A few services, one second a step.
#[derive(Clone, Debug)]
pub struct Tape {
    /// Milliseconds since the epoch of the last step.
    pub at_ms: i64,
    step: u64,
    totals: BTreeMap<String, [f64; 6]>,
}

impl Tape {
    /// A tape that starts at this moment.
    pub fn new(at_ms: i64, services: &[&str]) -> Self {
        let totals = services.iter().map(|service| ((*service).to_owned(), [0.0; 6])).collect();
        Self { at_ms, step: 0, totals }
    }

    /// One second on: forty requests to each service, slow ones at those that are in trouble.
    pub fn next(&mut self, trouble: &[&str]) -> Vec<TimeSeries> {
        self.at_ms += 1000;
        self.step += 1;
        let wobble = (self.step % 3) as f64;
        let mut out = Vec::new();
        for (service, totals) in &mut self.totals {
            let slow = trouble.contains(&service.as_str());
            let added =
                if slow { [0.0, 0.0, 0.0, 0.0, 40.0, 40.0] } else { [38.0 - wobble, 40.0, 40.0, 40.0, 40.0, 40.0] };
            for (total, more) in totals.iter_mut().zip(added) {
                *total += more;
            }
            for (bound, total) in BOUNDS.iter().zip(*totals) {
                let labels = [
                    ("__name__", "tape_request_duration_seconds_bucket"),
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
