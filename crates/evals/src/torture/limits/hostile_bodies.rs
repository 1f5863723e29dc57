//! Bar 7e: hostile request bodies (decompression bombs, deep nesting, slow bodies), eight at a time. Memory stays
//! bounded and an honest sender is served meanwhile.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use wardroom_testing::{Server, now_ms, remote_write};

use super::honest_sender::{JSON_HEADERS, SNAPPY_HEADERS, TOLERATED_P99_MS, send_honest_requests};
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::strace::rss_kib;

/// Memory that eight hostile bodies may take at the same time, in KiB.
const MAX_GROWTH_KIB: f64 = 96.0 * 1024.0;
/// Connections that send the same hostile body.
const ATTACKERS: usize = 8;
/// Requests of each attacker.
const REQUESTS_PER_ATTACKER: usize = 4;
/// Honest requests before the attacks.
const HONEST_REQUESTS_BEFORE: usize = 300;
/// Honest requests during each attack.
const HONEST_REQUESTS_PER_ATTACK: usize = 150;
/// Honest requests during the slow bodies.
const HONEST_REQUESTS_DURING_SLOW_BODIES: usize = 100;
const RSS_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A body, and the response statuses that are correct for it.
struct HostileBody {
    name: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    statuses: &'static [u16],
}

const JSON_GZIP_HEADERS: &[(&str, &str)] = &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
const OTLP_HEADERS: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf")];
const OTLP_GZIP_HEADERS: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("7e")?;
    let server = Server::start(&dir, "", &[])?;
    let mut result = BarResult::default();
    let before_ms = send_honest_requests(&server, HONEST_REQUESTS_BEFORE).p99_ms;
    for hostile in hostile_bodies()? {
        attack(&server, &hostile, before_ms, &mut result)?;
    }
    send_slow_bodies(&server, &mut result)?;
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// Sends a body from all attackers, with an honest sender beside them.
fn attack(server: &Server, hostile: &HostileBody, before_ms: f64, result: &mut BarResult) -> anyhow::Result<()> {
    let HostileBody { name, path, headers, body, statuses } = hostile;
    let rss_before = rss_kib(server)?;
    let (done, peak_kib) = (AtomicBool::new(false), AtomicU64::new(0));
    let (responses, honest) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                peak_kib.fetch_max(rss_kib(server).unwrap_or_default() as u64, Ordering::AcqRel);
                std::thread::sleep(RSS_POLL_INTERVAL);
            }
        });
        let send = || {
            let responses = (0..REQUESTS_PER_ATTACKER).map(|_| server.post(path, &server.sender_token, headers, body));
            responses.map(|response| response.map_or(0, |(status, ..)| status)).collect::<Vec<u16>>()
        };
        let attackers: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(send)).collect();
        let honest = send_honest_requests(server, HONEST_REQUESTS_PER_ATTACK);
        let mut responses = Vec::new();
        for attacker in attackers {
            responses.extend(attacker.join().map_err(|_| anyhow::anyhow!("an attacker panicked"))?);
        }
        done.store(true, Ordering::Release);
        watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        Ok((responses, honest))
    })?;
    let growth_kib = peak_kib.load(Ordering::Acquire) as f64 - rss_before;
    let unexpected_statuses: Vec<u16> = responses.iter().copied().filter(|status| !statuses.contains(status)).collect();
    print_progress(format!(
        "{name}: {:?}, memory grew by {:.0} MiB, honest p99 {:.0} ms ({before_ms:.0} before), {} lost",
        responses.first(),
        growth_kib / 1024.0,
        honest.p99_ms,
        honest.lost
    ));
    result.issued += HONEST_REQUESTS_PER_ATTACK as u64;
    result.acked += HONEST_REQUESTS_PER_ATTACK as u64 - honest.lost;
    result.missing += honest.lost;
    if !unexpected_statuses.is_empty() {
        result.faults.push(format!("{name}: unexpected status {unexpected_statuses:?}"));
    }
    if growth_kib > MAX_GROWTH_KIB {
        result.faults.push(format!("{name}: memory grew by {:.0} MiB", growth_kib / 1024.0));
    }
    if honest.p99_ms > (2.0 * before_ms).max(TOLERATED_P99_MS) {
        result.faults.push(format!("{name}: honest p99 {:.0} ms, {before_ms:.0} before", honest.p99_ms));
    }
    Ok(())
}

/// Opens requests whose bodies never finish; others must be served meanwhile.
fn send_slow_bodies(server: &Server, result: &mut BarResult) -> anyhow::Result<()> {
    let address = server.url.strip_prefix("http://").context("the URL is not http")?;
    let mut connections = Vec::new();
    for _ in 0..ATTACKERS {
        let mut connection = std::net::TcpStream::connect(address)?;
        write!(
            connection,
            "POST /ingest/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[",
            server.sender_token
        )?;
        connections.push(connection);
    }
    let honest = send_honest_requests(server, HONEST_REQUESTS_DURING_SLOW_BODIES);
    if honest.lost > 0 || honest.p99_ms > TOLERATED_P99_MS {
        result.faults.push(format!("slow bodies: honest p99 {:.0} ms, {} lost", honest.p99_ms, honest.lost));
    }
    Ok(())
}

fn hostile_bodies() -> anyhow::Result<Vec<HostileBody>> {
    let zeros = gzip(&vec![0; 1 << 30])?;
    // A varint of 4 GiB, and no data.
    let claims_4_gib = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let labels: Vec<(String, String)> = (0..400_000).map(|number| (format!("l{number:07}"), "v".to_owned())).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let many_labels = remote_write::body(vec![remote_write::series(&labels, 1.0, now_ms())]);
    let deep_json = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let empty_records = format!("[{}{{}}]", "{},".repeat(300_000));
    let refused: &[u16] = &[400, 413, 503];
    let hostile = |name, path, headers, body, statuses| HostileBody { name, path, headers, body, statuses };
    Ok(vec![
        hostile("snappy that claims 4 GiB", "/api/v1/write", SNAPPY_HEADERS, claims_4_gib, refused),
        hostile("gzip of 1 GiB, JSON", "/ingest/logs", JSON_GZIP_HEADERS, zeros.clone(), refused),
        hostile("gzip of 1 GiB, OTLP", "/v1/logs", OTLP_GZIP_HEADERS, zeros.clone(), refused),
        hostile("gzip in gzip", "/v1/metrics", OTLP_GZIP_HEADERS, gzip(&zeros)?, refused),
        hostile("JSON nested 10 000 deep", "/ingest/metrics", JSON_HEADERS, deep_json.into_bytes(), refused),
        hostile("400 000 labels", "/api/v1/write", SNAPPY_HEADERS, many_labels, refused),
        // A value nested too deep is truncated and its log record kept.
        hostile("protobuf nested 20 000 deep", "/v1/logs", OTLP_HEADERS, nested_otlp_logs(), &[200, 400]),
        hostile("300 000 empty records", "/ingest/logs", JSON_HEADERS, empty_records.into_bytes(), refused),
    ])
}

fn gzip(plain: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    compressed.write_all(plain)?;
    Ok(compressed.finish()?)
}

/// Encodes a log record whose body is an array in an array and so on, up to 200 kB.
fn nested_otlp_logs() -> Vec<u8> {
    let mut nested: Vec<u8> = Vec::new();
    for _ in 0..20_000 {
        // array_value { values { … } }
        let mut outer = vec![0x2a];
        put_varint(&mut outer, nested.len() + 1 + varint_bytes(nested.len()));
        outer.push(0x0a);
        put_varint(&mut outer, nested.len());
        outer.append(&mut nested);
        nested = outer;
        if nested.len() > 200_000 {
            break;
        }
    }
    // body, log_records, scope_logs, resource_logs
    for field in [0x2a_u8, 0x12, 0x12, 0x0a] {
        let mut outer = vec![field];
        put_varint(&mut outer, nested.len());
        outer.append(&mut nested);
        nested = outer;
    }
    nested
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Returns the length of a number's varint encoding.
fn varint_bytes(number: usize) -> usize {
    let mut out = Vec::new();
    put_varint(&mut out, number);
    out.len()
}
