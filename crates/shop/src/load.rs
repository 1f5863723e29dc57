//! The load: a daily-like shape, pressed into ten minutes, with surges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Requests that may be under way at once; more wait, as browsers do.
const IN_FLIGHT: usize = 300;

/// Sends requests for ever.
pub(crate) async fn run(url: String, rps: f64, seed: u64) {
    let client = reqwest::Client::builder().pool_max_idle_per_host(64).timeout(Duration::from_secs(10)).build();
    let Ok(client) = client else { return };
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let started = Instant::now();
    loop {
        let rate = rps * shape(started.elapsed().as_secs_f64(), seed);
        tokio::time::sleep(Duration::from_secs_f64(1.0 / rate.max(0.5))).await;
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            // A customer whose request fails goes away; the services count it.
            drop(client.get(url).send().await);
            drop(place);
        });
    }
}

/// The share of the average rate at this second: a slow wave, and a surge of half as much again for
/// 25 s out of every 200.
fn shape(second: f64, seed: u64) -> f64 {
    let wave = 1.0 + 0.25 * (second * std::f64::consts::TAU / 600.0 + seed as f64).sin();
    let surge = if (second + (seed % 200) as f64) % 200.0 > 175.0 { 1.5 } else { 1.0 };
    wave * surge
}
