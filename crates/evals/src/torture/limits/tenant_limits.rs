//! Bar 7f: a tenant that sends far more series and bytes than its limits allow, and another tenant that must not be
//! affected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use wardroom_testing::server::create_tenant_token;
use wardroom_testing::{Server, now_ms, remote_write};

use super::honest_sender::{HonestOutcome, JSON_HEADERS, SNAPPY_HEADERS, TOLERATED_P99_MS, send_honest_requests};
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::strace::rss_kib;

/// Default limit of series per tenant.
const SERIES_LIMIT: usize = 150_000;
/// Series that the tenant sends.
const SERIES_SENT: usize = 1_000_000;
const SERIES_PER_REQUEST: usize = 5000;
/// Number of series between honest requests.
const HONEST_INTERVAL_SERIES: usize = 100_000;
/// Honest requests before, at each of those points, and during the flood of bytes.
const HONEST_REQUESTS_BEFORE: usize = 300;
const HONEST_REQUESTS_PER_POINT: usize = 50;
const HONEST_REQUESTS_DURING_FLOOD: usize = 150;
/// Allowed growth of memory beyond the series limit.
const MAX_RSS_RATIO: f64 = 1.1;
/// Time until a new token is valid.
const TOKEN_DELAY: Duration = Duration::from_millis(1200);
/// Time for detection to process what was accepted.
const DETECTION_CATCH_UP_TIME: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("7f")?;
    let server = Server::start(&dir, "", &[("WARDROOM_SOURCES__TENANT_BYTES_PER_SECOND", "2000000")])?;
    let noisy_token = create_tenant_token(&server.dir.join("data"), "noisy", "sender", "noisy")?;
    std::thread::sleep(TOKEN_DELAY);
    let mut result = BarResult::default();
    let before_ms = send_honest_requests(&server, HONEST_REQUESTS_BEFORE).p99_ms;
    let mut honest = send_series(&server, &noisy_token, &mut result)?;
    honest = honest.combine(flood_bytes(&server, &noisy_token, before_ms, &mut result));
    print_progress(format!("other tenant: p99 {:.1} ms ({before_ms:.1} before), {} lost", honest.p99_ms, honest.lost));
    let sent = HONEST_REQUESTS_PER_POINT * SERIES_SENT / HONEST_INTERVAL_SERIES + HONEST_REQUESTS_DURING_FLOOD;
    result.issued = sent as u64;
    result.acked = sent as u64 - honest.lost;
    result.missing = honest.lost;
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// Sends series far beyond the limit; returns the outcome of the other tenant's requests.
fn send_series(server: &Server, noisy_token: &str, result: &mut BarResult) -> anyhow::Result<HonestOutcome> {
    let (mut accepted, mut rejected, mut rss_at_limit) = (0_u64, 0_u64, 0.0);
    let mut honest = HonestOutcome::default();
    for first in (0..SERIES_SENT).step_by(SERIES_PER_REQUEST) {
        let series = (first..first + SERIES_PER_REQUEST).map(|number| {
            let id = format!("{number:07}");
            let labels = [("__name__", "crowd"), ("id", &id), ("instance", "10.0.0.1:9100"), ("job", "x")];
            remote_write::series(&labels, 1.0, now_ms())
        });
        let body = remote_write::body(series.collect());
        loop {
            let (status, _, text) = server.post("/api/v1/write", noisy_token, SNAPPY_HEADERS, &body)?;
            match status {
                204 => accepted += SERIES_PER_REQUEST as u64,
                400 => {
                    let problem: serde_json::Value = serde_json::from_str(&text)?;
                    ensure!(problem["code"] == "series_limit", "{text}");
                    accepted += problem["accepted"].as_u64().unwrap_or_default();
                    rejected += problem["rejected"].as_u64().unwrap_or_default();
                }
                503 => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                other => anyhow::bail!("unexpected status {other}: {text}"),
            }
            break;
        }
        if first + SERIES_PER_REQUEST == SERIES_LIMIT {
            std::thread::sleep(DETECTION_CATCH_UP_TIME);
            rss_at_limit = rss_kib(server)?;
        }
        if first % HONEST_INTERVAL_SERIES == 0 {
            honest = honest.combine(send_honest_requests(server, HONEST_REQUESTS_PER_POINT));
        }
    }
    std::thread::sleep(DETECTION_CATCH_UP_TIME);
    let rss_after = rss_kib(server)?;
    print_progress(format!(
        "series: {accepted} accepted, {rejected} rejected; RSS {:.0} MiB at the limit, {:.0} MiB after",
        rss_at_limit / 1024.0,
        rss_after / 1024.0
    ));
    if accepted != SERIES_LIMIT as u64 || rejected != (SERIES_SENT - SERIES_LIMIT) as u64 {
        result
            .faults
            .push(format!("{accepted} series accepted and {rejected} rejected of {SERIES_SENT}, limit {SERIES_LIMIT}"));
    }
    if rss_after > rss_at_limit * MAX_RSS_RATIO {
        result.faults.push(format!("memory grew by {:.0} MiB beyond the limit", (rss_after - rss_at_limit) / 1024.0));
    }
    Ok(honest)
}

/// Floods the server with bytes far beyond the rate limit: the flood must be throttled, the other tenant served.
fn flood_bytes(server: &Server, noisy_token: &str, before_ms: f64, result: &mut BarResult) -> HonestOutcome {
    let message = "x".repeat(60_000);
    let body = serde_json::json!([{ "level": "INFO", "message": message, "service": "s" }]).to_string();
    let done = AtomicBool::new(false);
    let (honest, accepted, throttled) = std::thread::scope(|scope| {
        let send = || {
            let (mut accepted, mut throttled) = (0_u64, 0_u64);
            while !done.load(Ordering::Acquire) {
                let response = server.post("/ingest/logs", noisy_token, JSON_HEADERS, body.as_bytes());
                let count =
                    if response.is_ok_and(|(status, ..)| status == 503) { &mut throttled } else { &mut accepted };
                *count += 1;
            }
            (accepted, throttled)
        };
        let senders: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        std::thread::sleep(Duration::from_secs(1));
        let honest = send_honest_requests(server, HONEST_REQUESTS_DURING_FLOOD);
        done.store(true, Ordering::Release);
        let counts: Vec<(u64, u64)> = senders.into_iter().filter_map(|sender| sender.join().ok()).collect();
        let sum = |count: fn(&(u64, u64)) -> u64| counts.iter().map(count).sum::<u64>();
        (honest, sum(|count| count.0), sum(|count| count.1))
    });
    print_progress(format!("flood of bytes: {accepted} requests accepted, {throttled} throttled"));
    if throttled == 0 {
        result.faults.push("a flood of bytes was not throttled".to_owned());
    }
    if honest.p99_ms > (1.5 * before_ms).max(TOLERATED_P99_MS) {
        result.faults.push(format!("the other tenant's p99 rose from {before_ms:.1} to {:.1} ms", honest.p99_ms));
    }
    honest
}
