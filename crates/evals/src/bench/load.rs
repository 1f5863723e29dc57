//! Sends prebuilt requests to a target over a few connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::remote_write_bodies::{Bodies, SERIES_PER_REQUEST};
use super::statistics::quantile;
use super::target::Target;

/// Connections with one request in flight each, like Prometheus' shards.
pub(super) const CONNECTIONS: usize = 5;

/// Acknowledgements of a load.
pub(super) struct LoadOutcome {
    /// Latencies of all requests in ms, sorted.
    latencies_ms: Vec<f64>,
    /// Requests that were not acknowledged.
    pub(super) errors: u64,
}

impl LoadOutcome {
    /// Returns a quantile of the latencies in ms.
    pub(super) fn latency_ms(&self, q: f64) -> f64 {
        quantile(&self.latencies_ms, q)
    }
}

/// Sends all requests, as fast as they are acknowledged or at a rate of samples. A series stays on its connection, as
/// it stays on its shard in Prometheus: some targets refuse samples out of order, for others they are expensive.
pub(super) fn send(
    target: &Target,
    bodies: &Bodies,
    requests: &[Vec<u8>],
    samples_per_s: Option<f64>,
) -> anyhow::Result<LoadOutcome> {
    let (errors, latencies_ms) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (errors, latencies_ms) = (&errors, &latencies_ms);
            scope.spawn(move || {
                let client = target.client();
                let mut latencies = Vec::new();
                let is_on_connection =
                    |(number, _): &(usize, &Vec<u8>)| number % bodies.requests_per_step() % CONNECTIONS == connection;
                for (number, body) in requests.iter().enumerate().filter(is_on_connection) {
                    if let Some(samples_per_s) = samples_per_s {
                        let due = Duration::from_secs_f64(number as f64 * SERIES_PER_REQUEST as f64 / samples_per_s);
                        std::thread::sleep(due.saturating_sub(started.elapsed()));
                    }
                    let sent = Instant::now();
                    if !client.send(body) {
                        errors.fetch_add(1, Ordering::Relaxed);
                    }
                    latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
                }
                latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).extend(latencies);
            });
        }
    });
    let mut latencies_ms = latencies_ms.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(latencies_ms.len() == requests.len(), "a sender ended early");
    latencies_ms.sort_unstable_by(f64::total_cmp);
    Ok(LoadOutcome { latencies_ms, errors: errors.into_inner() })
}
