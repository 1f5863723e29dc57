//! The load: a daily pattern compressed into ten minutes, with surges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Requests in flight at once; further ones are dropped.
const MAX_IN_FLIGHT: usize = 300;

/// Sends requests until the task is aborted.
pub(crate) async fn run(url: String, rps: f64, seed: u64) {
    let client = reqwest::Client::builder().pool_max_idle_per_host(64).timeout(Duration::from_secs(10)).build();
    let Ok(client) = client else { return };
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let started = Instant::now();
    loop {
        let rate = rps * rate_factor(started.elapsed().as_secs_f64(), seed);
        tokio::time::sleep(Duration::from_secs_f64(1.0 / rate.max(0.5))).await;
        let Ok(permit) = Arc::clone(&in_flight).try_acquire_owned() else { continue };
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            // Failed requests are not retried; the services count them.
            drop(client.get(url).send().await);
            drop(permit);
        });
    }
}

/// Factor of the average rate at a second after the start: a sine wave of ten minutes, and 50 % more for 25 s of every
/// 200 s.
fn rate_factor(second: f64, seed: u64) -> f64 {
    let wave = 1.0 + 0.25 * (second * std::f64::consts::TAU / 600.0 + seed as f64).sin();
    let surge = if (second + (seed % 200) as f64) % 200.0 > 175.0 { 1.5 } else { 1.0 };
    wave * surge
}
