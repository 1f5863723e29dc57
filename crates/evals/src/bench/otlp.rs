//! `bench otlp`: the same prebuilt log records and spans for Wardroom and the rotel collector.
//!
//! rotel has no file exporter, so it exports into its `blackhole`, while Wardroom makes every request durable, keeps
//! its body, and runs detection on every record. The report states both figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_testing::now_ms;

use super::load::CONNECTIONS;
use super::run_environment::{commit, machine};
use super::statistics::{median, quantile};
use super::target::{LakeOptions, Target};
use crate::progress::print_progress;

const TARGETS: [&str; 2] = ["wardroom", "rotel"];
/// Records per request, as SDKs and collectors batch them.
const RECORDS_PER_REQUEST: usize = 500;
/// Failed requests after which a run is aborted.
const MAX_RETRIES: u64 = 100_000;
const RETRY_DELAY: Duration = Duration::from_millis(20);
const PROTOBUF_HEADERS: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf")];

/// Runs the benchmark.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut repeat, mut records, mut file) = (3, 1_000_000, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("repeat") => repeat = arguments.value()?.parse()?,
            Long("records") => records = arguments.value()?.parse()?,
            Long("json") => file = Some(std::path::PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut runs = Vec::new();
    for (signal, path, build) in
        [("logs", "/v1/logs", logs as fn(usize) -> Vec<Vec<u8>>), ("traces", "/v1/traces", traces)]
    {
        print_progress(format!("{records} {signal}: preparing bodies"));
        let bodies = build(records / RECORDS_PER_REQUEST);
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        for repeat in 0..repeat {
            for name in TARGETS {
                let mut figures =
                    measure(name, path, &bodies).with_context(|| format!("{name}, {signal}, run {repeat}"))?;
                let cpu_s = figures["cpu_s"].as_f64().unwrap_or(f64::NAN);
                figures["target"] = json!(name);
                figures["signal"] = json!(signal);
                figures["repeat"] = json!(repeat);
                figures["bytes"] = json!(bytes);
                figures["cpu_s_per_gb"] = json!(cpu_s / (bytes as f64 / 1e9));
                figures["cpu_s_per_m"] = json!(cpu_s / (records as f64 / 1e6));
                print_progress(&figures);
                runs.push(figures);
            }
        }
    }
    let report = json!({ "commit": commit(), "machine": machine(), "medians": medians(&runs), "runs": runs });
    print_progress(serde_json::to_string_pretty(&report["medians"])?);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    Ok(())
}

fn measure(name: &str, path: &str, bodies: &[Vec<u8>]) -> anyhow::Result<Value> {
    let mut target = Target::start(name, LakeOptions::OFF)?;
    let before = target.usage()?;
    let (next, errors) = (AtomicU64::new(0), AtomicU64::new(0));
    let latencies = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let client = target.client_for(path, PROTOBUF_HEADERS);
                let mut own_latencies = Vec::new();
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let sent = Instant::now();
                    // Like any sender, retries after a delay.
                    while !client.send(body) {
                        if errors.fetch_add(1, Ordering::Relaxed) > MAX_RETRIES {
                            return;
                        }
                        std::thread::sleep(RETRY_DELAY);
                    }
                    own_latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
                }
                latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(own_latencies);
            });
        }
    });
    let wall = started.elapsed().as_secs_f64();
    target.wait_until_idle()?;
    let after = target.usage()?;
    target.stop()?;
    let mut latencies = latencies.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(latencies.len() == bodies.len(), "{name} did not accept every request");
    latencies.sort_unstable_by(f64::total_cmp);
    Ok(json!({
        "cpu_s": after.cpu_s - before.cpu_s,
        "wall_s": wall,
        "rss_mib": after.rss_kib / 1024.0,
        "ack_ms": { "p50": quantile(&latencies, 0.5), "p99": quantile(&latencies, 0.99) },
        "retries": errors.load(Ordering::Relaxed),
    }))
}

fn medians(runs: &[Value]) -> Value {
    let mut medians = serde_json::Map::new();
    for signal in ["logs", "traces"] {
        for name in TARGETS {
            let matching: Vec<&Value> =
                runs.iter().filter(|run| run["target"] == name && run["signal"] == signal).collect();
            let median_of = |field: &str| median(matching.iter().filter_map(|run| run[field].as_f64()));
            let p99 = median(matching.iter().filter_map(|run| run["ack_ms"]["p99"].as_f64()));
            medians.insert(
                format!("{name}, {signal}"),
                json!({ "cpu_s_per_gb": median_of("cpu_s_per_gb"),
                "cpu_s_per_m": median_of("cpu_s_per_m"), "rss_mib": median_of("rss_mib"), "ack_p99_ms": p99 }),
            );
        }
    }
    Value::Object(medians)
}

/// Returns a string attribute.
fn attribute(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn resource(number: usize) -> Option<Resource> {
    let attributes = [
        ("service.name", format!("workload-{}", number % 37)),
        ("service.version", "1.14.2".to_owned()),
        ("service.instance.id", format!("workload-{}-7d9f8b6c5d-{:05x}", number % 37, number % 200)),
        ("k8s.namespace.name", format!("team-{}", number % 11)),
        ("host.name", format!("node-{:03}", number % 50)),
    ];
    let attributes = attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    Some(Resource { attributes, ..Resource::default() })
}

/// Encodes requests of log records.
fn logs(requests: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(7);
    let start = now_ms() as u64 - 600_000;
    let body = |random: &mut StdRng, number: usize| {
        let record = |record: usize, random: &mut StdRng| {
            let user = random.random_range(0..100_000);
            let message = match record % 4 {
                0 => format!("GET /api/v1/orders/{user} 200 in {} ms", random.random_range(1..400)),
                1 => format!("cache miss for key order:{user}, fetched from replica {}", user % 5),
                2 => format!("payment {user} authorised by provider acme, amount {}.{:02} EUR", user % 900, user % 100),
                _ => format!(
                    "retrying call to inventory after {} ms: connection reset by peer",
                    random.random_range(10..900)
                ),
            };
            LogRecord {
                time_unix_nano: (start + number as u64) * 1_000_000,
                severity_number: if record % 4 == 3 { 13 } else { 9 },
                severity_text: if record % 4 == 3 { "WARN" } else { "INFO" }.to_owned(),
                body: Some(AnyValue { value: Some(any_value::Value::StringValue(message)) }),
                attributes: vec![
                    attribute("http.route", "/api/v1/orders/{id}"),
                    attribute("thread", &format!("worker-{}", record % 16)),
                    attribute("user.id", &user.to_string()),
                ],
                trace_id: random.random::<[u8; 16]>().to_vec(),
                span_id: random.random::<[u8; 8]>().to_vec(),
                ..LogRecord::default()
            }
        };
        let log_records = (0..RECORDS_PER_REQUEST).map(|record_number| record(record_number, random)).collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let group = ResourceLogs { resource: resource(number), scope_logs, ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec()
    };
    (0..requests).map(|number| body(&mut random, number)).collect()
}

/// Encodes requests of spans: one request of client spans, then one with the server spans of the same calls.
fn traces(requests: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(8);
    let start = now_ms() as u64 - 600_000;
    let mut bodies = Vec::with_capacity(requests);
    let mut open_calls: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for number in 0..requests {
        let client = open_calls.is_empty();
        let span = |random: &mut StdRng, (trace_id, span_id, parent_span_id): (Vec<u8>, Vec<u8>, Vec<u8>)| {
            let end = (start + number as u64 * 10) * 1_000_000;
            Span {
                trace_id,
                span_id,
                parent_span_id,
                name: if client { "GET" } else { "GET /api/v1/orders/{id}" }.to_owned(),
                kind: if client { 3 } else { 2 },
                start_time_unix_nano: end - random.random_range(1_000_000..80_000_000),
                end_time_unix_nano: end,
                attributes: vec![
                    attribute("http.request.method", "GET"),
                    attribute("http.response.status_code", "200"),
                    attribute("server.address", "orders.shop.svc"),
                    attribute("url.path", "/api/v1/orders/1234"),
                    attribute("user_agent.original", "okhttp/4.12"),
                ],
                ..Span::default()
            }
        };
        let spans = if client {
            let ids: Vec<(Vec<u8>, Vec<u8>)> = (0..RECORDS_PER_REQUEST)
                .map(|_| (random.random::<[u8; 16]>().to_vec(), random.random::<[u8; 8]>().to_vec()))
                .collect();
            open_calls.clone_from(&ids);
            ids.into_iter().map(|(trace, id)| span(&mut random, (trace, id, Vec::new()))).collect()
        } else {
            let ids = std::mem::take(&mut open_calls);
            ids.into_iter()
                .map(|(trace, parent)| {
                    let id = random.random::<[u8; 8]>().to_vec();
                    span(&mut random, (trace, id, parent))
                })
                .collect()
        };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let group = ResourceSpans { resource: resource(number), scope_spans, ..ResourceSpans::default() };
        bodies.push(ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec());
    }
    bodies
}
