//! `bench otlp`: the same prebuilt log records and spans at Wardroom and at the rotel collector.
//!
//! rotel has no file writer: it writes into its `blackhole`, that is nowhere, while Wardroom makes every request
//! durable, keeps its body, and looks at every line and span. The figures are printed beside each other with
//! that said.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, Value as Word, ValueExt};
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

use super::target::Target;
use super::{CONNECTIONS, median, process};
use crate::tell;

const TARGETS: [&str; 2] = ["wardroom", "rotel"];
/// Records of one request, as SDKs and collectors batch them.
const BATCH: usize = 500;
/// What a request says of its body.
pub(super) const HEADERS: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf")];

/// Runs the benchmark.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut repeat, mut records, mut file) = (3, 1_000_000, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Word(word) if word == "otlp" => {}
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
        tell(format!("{records} {signal}: preparing bodies"));
        let bodies = build(records / BATCH);
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        for repeat in 0..repeat {
            for name in TARGETS {
                let mut figures =
                    one(name, path, &bodies).with_context(|| format!("{name}, {signal}, run {repeat}"))?;
                let cpu_s = figures["cpu_s"].as_f64().unwrap_or(f64::NAN);
                figures["target"] = json!(name);
                figures["signal"] = json!(signal);
                figures["repeat"] = json!(repeat);
                figures["bytes"] = json!(bytes);
                figures["cpu_s_per_gb"] = json!(cpu_s / (bytes as f64 / 1e9));
                figures["cpu_s_per_m"] = json!(cpu_s / (records as f64 / 1e6));
                tell(&figures);
                runs.push(figures);
            }
        }
    }
    let report =
        json!({ "commit": process::commit(), "machine": process::machine(), "medians": medians(&runs), "runs": runs });
    tell(serde_json::to_string_pretty(&report["medians"])?);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    Ok(())
}

fn one(name: &str, path: &str, bodies: &[Vec<u8>]) -> anyhow::Result<Value> {
    let mut target = Target::start(name, false)?;
    let before = target.usage()?;
    let (next, errors) = (AtomicU64::new(0), AtomicU64::new(0));
    let latencies = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let client = target.client_for(path, HEADERS);
                let mut own = Vec::new();
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let sent = Instant::now();
                    // Told to wait, a sender waits and sends again.
                    while !client.send(body) {
                        if errors.fetch_add(1, Ordering::Relaxed) > 100_000 {
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    own.push(sent.elapsed().as_secs_f64() * 1000.0);
                }
                latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            });
        }
    });
    let wall = started.elapsed().as_secs_f64();
    target.settle()?;
    let after = target.usage()?;
    target.end()?;
    let mut latencies = latencies.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(latencies.len() == bodies.len(), "{name} did not take everything");
    latencies.sort_unstable_by(f64::total_cmp);
    let quantile = |q: f64| latencies.get((latencies.len() as f64 * q) as usize).copied().unwrap_or(f64::NAN);
    Ok(json!({
        "cpu_s": after.cpu_s - before.cpu_s,
        "wall_s": wall,
        "rss_mib": after.rss_kib / 1024.0,
        "ack_ms": { "p50": quantile(0.5), "p99": quantile(0.99) },
        "retries": errors.load(Ordering::Relaxed),
    }))
}

fn medians(runs: &[Value]) -> Value {
    let mut all = serde_json::Map::new();
    for signal in ["logs", "traces"] {
        for name in TARGETS {
            let own: Vec<&Value> = runs.iter().filter(|run| run["target"] == name && run["signal"] == signal).collect();
            let of = |field: &str| median(own.iter().filter_map(|run| run[field].as_f64()));
            let p99 = median(own.iter().filter_map(|run| run["ack_ms"]["p99"].as_f64()));
            all.insert(
                format!("{name}, {signal}"),
                json!({ "cpu_s_per_gb": of("cpu_s_per_gb"),
                "cpu_s_per_m": of("cpu_s_per_m"), "rss_mib": of("rss_mib"), "ack_p99_ms": p99 }),
            );
        }
    }
    Value::Object(all)
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn resource(at: usize) -> Option<Resource> {
    let attributes = [
        ("service.name", format!("workload-{}", at % 37)),
        ("service.version", "1.14.2".to_owned()),
        ("service.instance.id", format!("workload-{}-7d9f8b6c5d-{:05x}", at % 37, at % 200)),
        ("k8s.namespace.name", format!("team-{}", at % 11)),
        ("host.name", format!("node-{:03}", at % 50)),
    ];
    let attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
    Some(Resource { attributes, ..Resource::default() })
}

pub(super) fn logs(requests: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(7);
    let start = now_ms() as u64 - 600_000;
    let body = |random: &mut StdRng, at: usize| {
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
                time_unix_nano: (start + at as u64) * 1_000_000,
                severity_number: if record % 4 == 3 { 13 } else { 9 },
                severity_text: if record % 4 == 3 { "WARN" } else { "INFO" }.to_owned(),
                body: Some(AnyValue { value: Some(any_value::Value::StringValue(message)) }),
                attributes: vec![
                    text("http.route", "/api/v1/orders/{id}"),
                    text("thread", &format!("worker-{}", record % 16)),
                    text("user.id", &user.to_string()),
                ],
                trace_id: random.random::<[u8; 16]>().to_vec(),
                span_id: random.random::<[u8; 8]>().to_vec(),
                ..LogRecord::default()
            }
        };
        let log_records = (0..BATCH).map(|number| record(number, random)).collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let group = ResourceLogs { resource: resource(at), scope_logs, ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec()
    };
    (0..requests).map(|at| body(&mut random, at)).collect()
}

/// Calls, each a client's span and the server's, from two services in turn.
pub(super) fn traces(requests: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(8);
    let start = now_ms() as u64 - 600_000;
    let mut bodies = Vec::with_capacity(requests);
    let mut waiting: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for at in 0..requests {
        let calling = waiting.is_empty();
        let span = |random: &mut StdRng, (trace_id, span_id, parent_span_id): (Vec<u8>, Vec<u8>, Vec<u8>)| {
            let end = (start + at as u64 * 10) * 1_000_000;
            Span {
                trace_id,
                span_id,
                parent_span_id,
                name: if calling { "GET" } else { "GET /api/v1/orders/{id}" }.to_owned(),
                kind: if calling { 3 } else { 2 },
                start_time_unix_nano: end - random.random_range(1_000_000..80_000_000),
                end_time_unix_nano: end,
                attributes: vec![
                    text("http.request.method", "GET"),
                    text("http.response.status_code", "200"),
                    text("server.address", "orders.shop.svc"),
                    text("url.path", "/api/v1/orders/1234"),
                    text("user_agent.original", "okhttp/4.12"),
                ],
                ..Span::default()
            }
        };
        let spans = if calling {
            let ids: Vec<(Vec<u8>, Vec<u8>)> = (0..BATCH)
                .map(|_| (random.random::<[u8; 16]>().to_vec(), random.random::<[u8; 8]>().to_vec()))
                .collect();
            waiting.clone_from(&ids);
            ids.into_iter().map(|(trace, id)| span(&mut random, (trace, id, Vec::new()))).collect()
        } else {
            let ids = std::mem::take(&mut waiting);
            ids.into_iter()
                .map(|(trace, parent)| {
                    let id = random.random::<[u8; 8]>().to_vec();
                    span(&mut random, (trace, id, parent))
                })
                .collect()
        };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let group = ResourceSpans { resource: resource(at), scope_spans, ..ResourceSpans::default() };
        bodies.push(ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec());
    }
    bodies
}
