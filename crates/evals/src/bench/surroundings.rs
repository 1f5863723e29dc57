//! What goes on beside what a benchmark does to a server: intake, another tenant, and the watch over the processes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use wardroom_testing::{Server, now_ms, remote_write};

use crate::bench::process_usage::process_tree_usage;
use crate::bench::statistics::quantile;

/// Samples that are sent each second.
const SAMPLES_PER_S: usize = 20_000;
/// Series of a request, with one sample each; the default of Prometheus.
const SERIES_PER_REQUEST: usize = 2000;
/// Series of a pod: 1000 pods in all, well below the limit of entities.
const SERIES_PER_POD: usize = 20;
/// Connections with one request in flight each.
const SENDERS: usize = 2;
/// Interval of the other tenant's query.
const NEIGHBOUR_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of the watch over the processes.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Log lines of each tenant.
const LOG_LINES: usize = 5000;
const LINES_PER_REQUEST: usize = 500;

/// What was measured beside some work.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    /// Times of acknowledgements, sorted.
    latencies_ms: Vec<f64>,
    /// Requests with samples that were not acknowledged.
    pub(super) ack_errors: u64,
    /// Times of the other tenant's queries; `None` for one that failed.
    pub(super) neighbour_ms: Vec<Option<f64>>,
    /// How often the process that takes telemetry in was missing or another one.
    pub(super) server_deaths: u64,
    /// How often a process of another kind was replaced.
    pub(super) worker_restarts: u64,
    /// Peak of the memory of all processes.
    pub(super) peak_rss_mib: f64,
}

impl Measured {
    /// Returns a quantile of the times of acknowledgements.
    pub(super) fn ack_ms(&self, q: f64) -> f64 {
        quantile(&self.latencies_ms, q)
    }

    pub(super) fn samples_per_s(&self) -> f64 {
        self.latencies_ms.len() as f64 * SERIES_PER_REQUEST as f64 / self.seconds
    }
}

/// Locks a mutex, also after a panic of another thread.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends log lines of a tenant.
pub(super) fn write_logs(server: &Server, sender_token: &str) -> anyhow::Result<()> {
    for first in (0..LOG_LINES).step_by(LINES_PER_REQUEST) {
        let line = |number: usize| {
            let level = ["INFO", "WARN", "ERROR"][number % 3];
            json!({ "level": level, "service": format!("s{}", number % 20),
                "message": format!("request {number} of user {} took {} ms: a=b; c=d", number * 7919 % 1000, number % 900),
                "labels": { "pod": format!("pod-{}", number % 50), "region": "eu-west-1" } })
        };
        let lines: Vec<_> = (first..first + LINES_PER_REQUEST).map(line).collect();
        let (status, response) = server.post_json("/ingest/logs", sender_token, &json!(lines))?;
        ensure!(status == 200, "/ingest/logs: {status} {response}");
    }
    Ok(())
}

/// Runs some work beside intake and, with a token, another tenant's queries.
pub(super) fn measure<T>(
    server: &Server,
    neighbour_token: Option<&str>,
    work: impl FnOnce() -> T,
) -> anyhow::Result<(Measured, T)> {
    let (done, measured) = (AtomicBool::new(false), Mutex::new(Measured::default()));
    let started = Instant::now();
    let result = std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (done, measured) = (&done, &measured);
            scope.spawn(move || send_samples(server, sender, done, measured));
        }
        if let Some(token) = neighbour_token {
            scope.spawn(|| ask_as_neighbour(server, token, &done, &measured));
        }
        scope.spawn(|| watch_processes(server, &done, &measured));
        let result = work();
        done.store(true, Ordering::Release);
        result
    });
    let mut measured = measured.into_inner().unwrap_or_else(PoisonError::into_inner);
    measured.seconds = started.elapsed().as_secs_f64();
    measured.latencies_ms.sort_unstable_by(f64::total_cmp);
    ensure!(!measured.latencies_ms.is_empty(), "no samples were sent");
    Ok((measured, result))
}

/// Sends this sender's share of the samples until done.
fn send_samples(server: &Server, sender: usize, done: &AtomicBool, measured: &Mutex<Measured>) {
    let interval = Duration::from_secs_f64((SERIES_PER_REQUEST * SENDERS) as f64 / SAMPLES_PER_S as f64);
    let (started, mut number) = (Instant::now(), 0);
    while !done.load(Ordering::Acquire) {
        let first = (number as usize * SENDERS + sender) * SERIES_PER_REQUEST % SAMPLES_PER_S;
        let body = remote_write::body((first..first + SERIES_PER_REQUEST).map(sample).collect());
        std::thread::sleep((interval * number).saturating_sub(started.elapsed()));
        let sent = Instant::now();
        let acknowledged = server.write(&body).is_ok_and(|status| status == 204);
        let mut measured = locked(measured);
        measured.latencies_ms.push(sent.elapsed().as_secs_f64() * 1000.0);
        measured.ack_errors += u64::from(!acknowledged);
        number += 1;
    }
}

/// Returns a sample of a series, as of now.
fn sample(number: usize) -> remote_write::TimeSeries {
    let pod = number / SERIES_PER_POD;
    let labels = [
        ("__name__", ["http_requests_total", "queue_depth_items"][number % 2]),
        ("instance", &format!("10.0.{}.{}:9100", pod / 256, pod % 256)),
        ("job", &format!("workload-{}", pod % 37)),
        ("namespace", &format!("team-{}", pod % 11)),
        ("pod", &format!("workload-{}-{pod:05x}", pod % 37)),
        ("shard", &format!("{}", number % SERIES_PER_POD)),
    ];
    remote_write::series(&labels, (number % 100) as f64, now_ms())
}

/// Asks an ordinary question once a second until done.
fn ask_as_neighbour(server: &Server, token: &str, done: &AtomicBool, measured: &Mutex<Measured>) {
    let query =
        json!({ "query": "SELECT service, count(*) AS lines FROM logs WHERE severity = 'high' GROUP BY service" });
    while !done.load(Ordering::Acquire) {
        let asked = Instant::now();
        let answer = server.post_json("/api/v1/sql", token, &query);
        let took = asked.elapsed();
        let is_right =
            answer.is_ok_and(|(status, rows)| status == 200 && rows.as_array().is_some_and(|rows| rows.len() == 20));
        locked(measured).neighbour_ms.push(is_right.then_some(took.as_secs_f64() * 1000.0));
        std::thread::sleep(NEIGHBOUR_INTERVAL.saturating_sub(took));
    }
}

/// Watches which processes run, and their memory, until done.
fn watch_processes(server: &Server, done: &AtomicBool, measured: &Mutex<Measured>) {
    let mut before = BTreeMap::new();
    while !done.load(Ordering::Acquire) {
        let processes = server.processes();
        let root = processes.first().map_or(0, |(_, pid)| *pid);
        let rss_mib = process_tree_usage(root).rss_kib / 1024.0;
        let now: BTreeMap<u32, String> = processes.into_iter().map(|(role, pid)| (pid, role)).collect();
        let is_server = |role: &String| role == "server";
        let mut measured = locked(measured);
        measured.peak_rss_mib = measured.peak_rss_mib.max(rss_mib);
        measured.server_deaths += u64::from(!now.values().any(is_server));
        for (pid, role) in now.iter().filter(|(pid, _)| !before.is_empty() && !before.contains_key(*pid)) {
            match is_server(role) {
                true => measured.server_deaths += 1,
                false => measured.worker_restarts += u64::from(*pid > 0),
            }
        }
        drop(measured);
        before = now;
        std::thread::sleep(WATCH_INTERVAL);
    }
}
