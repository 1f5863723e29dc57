//! Bars 7e and 7f: hostile bodies and a crowd of series, with honest traffic beside them.
//!
//! The server's memory and the honest sender's latency are read from outside. 7e: bombs, eight at once. 7f: a
//! tenant far over its series and its bytes, and another that must not notice.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wardroom_testing::server::create_tenant_token;
use wardroom_testing::{Server, now_ms, wire};

use crate::strace::rss_kib;
use crate::{Options, Tally, tell};

/// How much memory eight bombs may take at once, in KiB (bar 7e).
const BOMB_MEMORY: f64 = 96.0 * 1024.0;
/// An honest sender's p99 that says nothing, in ms: the flood itself runs on the same cores, and whatever else
/// the machine does.
const BUSY_MS: f64 = 150.0;
/// Series a tenant may have, as the default says, and how many it tries.
const SERIES_LIMIT: usize = 150_000;
const TRIED: usize = 1_000_000;

/// What is posted, and what may be answered.
struct Bomb {
    name: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    statuses: &'static [u16],
}

const SNAPPY: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const JSON_GZIP: &[(&str, &str)] = &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
const OTLP: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf")];
const OTLP_GZIP: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];

fn bombs() -> anyhow::Result<Vec<Bomb>> {
    let gzip = |plain: &[u8]| -> anyhow::Result<Vec<u8>> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(plain)?;
        Ok(packed.finish()?)
    };
    let zeros = gzip(&vec![0; 1 << 30])?;
    // A length of 4 GiB, and nothing behind it.
    let claims = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let labels: Vec<(String, String)> = (0..400_000).map(|at| (format!("l{at:07}"), "v".to_owned())).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let deep_json = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut nested: Vec<u8> = Vec::new();
    for _ in 0..20_000 {
        // array_value { values { … } }
        let mut outer = vec![0x2a];
        put(&mut outer, nested.len() + 1 + length(nested.len()));
        outer.push(0x0a);
        put(&mut outer, nested.len());
        outer.append(&mut nested);
        nested = outer;
        if nested.len() > 200_000 {
            break;
        }
    }
    for field in [0x2a_u8, 0x12, 0x12, 0x0a] {
        let mut outer = vec![field];
        put(&mut outer, nested.len());
        outer.append(&mut nested);
        nested = outer;
    }
    let refused: &[u16] = &[400, 413, 503];
    let bomb = |name, path, headers, body, statuses| Bomb { name, path, headers, body, statuses };
    Ok(vec![
        bomb("snappy that claims 4 GiB", "/api/v1/write", SNAPPY, claims, refused),
        bomb("gzip of a gigabyte, JSON", "/ingest/logs", JSON_GZIP, zeros.clone(), refused),
        bomb("gzip of a gigabyte, OTLP", "/v1/logs", OTLP_GZIP, zeros.clone(), refused),
        bomb("gzip in gzip", "/v1/metrics", OTLP_GZIP, gzip(&zeros)?, refused),
        bomb("JSON 10 000 deep", "/ingest/metrics", JSON, deep_json.into_bytes(), refused),
        bomb(
            "400 000 labels",
            "/api/v1/write",
            SNAPPY,
            wire::body(vec![wire::series(&labels, 1.0, now_ms())]),
            refused,
        ),
        // A value nested too deep is cut, its log line is kept.
        bomb("protobuf 20 000 deep", "/v1/logs", OTLP, nested, &[200, 400]),
        bomb(
            "300 000 empty records",
            "/ingest/logs",
            JSON,
            format!("[{}{{}}]", "{},".repeat(300_000)).into_bytes(),
            refused,
        ),
    ])
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn length(number: usize) -> usize {
    let mut out = Vec::new();
    put(&mut out, number);
    out.len()
}

/// Bar 7e.
pub(crate) fn explode(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-7e-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let server = Server::start(&dir, "", &[])?;
    let mut tally = Tally::default();
    let (calm, _) = honest(&server, &server.sender, 300);
    for bomb in bombs()? {
        let before = rss_kib(&server)?;
        let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let (answers, beside) = std::thread::scope(|scope| -> anyhow::Result<_> {
            let watching = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let now = rss_kib(&server).unwrap_or_default();
                    peak.fetch_max(now as u64, Ordering::AcqRel);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let thrown: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let answers = (0..4).map(|_| server.post(bomb.path, &server.sender, bomb.headers, &bomb.body));
                        answers.map(|answer| answer.map_or(0, |(status, ..)| status)).collect::<Vec<u16>>()
                    })
                })
                .collect();
            let beside = honest(&server, &server.sender, 150);
            let mut answers = Vec::new();
            for thrown in thrown {
                answers.extend(thrown.join().map_err(|_| anyhow::anyhow!("a thrower panicked"))?);
            }
            over.store(true, Ordering::Release);
            watching.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
            Ok((answers, beside))
        })?;
        let grown = peak.load(Ordering::Acquire) as f64 - before;
        let wrong: Vec<u16> = answers.iter().copied().filter(|status| !bomb.statuses.contains(status)).collect();
        let name = bomb.name;
        tell(format!(
            "{name}: {:?}, {:.0} MiB more, honest p99 {:.0} ms ({calm:.0} before), {} lost",
            answers.first(),
            grown / 1024.0,
            beside.0,
            beside.1
        ));
        tally.issued += 150;
        tally.acked += 150 - beside.1;
        tally.missing += beside.1;
        if !wrong.is_empty() {
            tally.faults.push(format!("{name}: answered {wrong:?}"));
        }
        if grown > BOMB_MEMORY {
            tally.faults.push(format!("{name}: {:.0} MiB more memory", grown / 1024.0));
        }
        if beside.0 > (2.0 * calm).max(BUSY_MS) {
            tally.faults.push(format!("{name}: honest p99 {:.0} ms, {calm:.0} before", beside.0));
        }
    }
    slow(&server, &mut tally)?;
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// A body that trickles: others are served meanwhile.
fn slow(server: &Server, tally: &mut Tally) -> anyhow::Result<()> {
    let address = server.url.strip_prefix("http://").context("no http")?;
    let mut lines = Vec::new();
    for _ in 0..8 {
        let mut line = std::net::TcpStream::connect(address)?;
        write!(
            line,
            "POST /ingest/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[",
            server.sender
        )?;
        lines.push(line);
    }
    let (p99, lost) = honest(server, &server.sender, 100);
    if lost > 0 || p99 > BUSY_MS {
        tally.faults.push(format!("eight slow bodies: honest p99 {p99:.0} ms, {lost} lost"));
    }
    Ok(())
}

/// Bar 7f.
pub(crate) fn crowd(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-7f-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let server = Server::start(&dir, "", &[("WARDROOM_SOURCES__TENANT_BYTES_PER_SECOND", "2000000")])?;
    let loud = create_tenant_token(&server.dir.join("data"), "loud", "sender", "loud")?;
    std::thread::sleep(Duration::from_millis(1200));
    let mut tally = Tally::default();
    let (calm, _) = honest(&server, &server.sender, 300);
    let (mut accepted, mut rejected, mut at_limit) = (0_u64, 0_u64, 0.0);
    let mut beside = (0.0_f64, 0);
    for first in (0..TRIED).step_by(5000) {
        let series = (first..first + 5000).map(|at| {
            let id = format!("{at:07}");
            wire::series(
                &[("__name__", "crowd"), ("id", &id), ("instance", "10.0.0.1:9100"), ("job", "x")],
                1.0,
                now_ms(),
            )
        });
        let body = wire::body(series.collect());
        loop {
            let (status, _, text) = server.post("/api/v1/write", &loud, SNAPPY, &body)?;
            match status {
                204 => accepted += 5000,
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
                other => anyhow::bail!("answered {other}: {text}"),
            }
            break;
        }
        if first + 5000 == SERIES_LIMIT {
            std::thread::sleep(Duration::from_secs(1));
            at_limit = rss_kib(&server)?;
        }
        if first % 100_000 == 0 {
            let (p99, lost) = honest(&server, &server.sender, 50);
            beside = (beside.0.max(p99), beside.1 + lost);
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = rss_kib(&server)?;
    tell(format!(
        "series: {accepted} accepted, {rejected} refused; {:.0} MiB at the limit, {:.0} after",
        at_limit / 1024.0,
        after / 1024.0
    ));
    if accepted != SERIES_LIMIT as u64 || rejected != (TRIED - SERIES_LIMIT) as u64 {
        tally
            .faults
            .push(format!("{accepted} series accepted and {rejected} refused of {TRIED}, limit {SERIES_LIMIT}"));
    }
    if after > at_limit * 1.1 {
        tally.faults.push(format!("memory grew by {:.0} MiB beyond the limit", (after - at_limit) / 1024.0));
    }
    let flooded = bytes(&server, &loud, calm, &mut tally)?;
    let (p99, lost) = (beside.0.max(flooded.0), beside.1 + flooded.1);
    tell(format!("the other tenant: p99 {p99:.1} ms ({calm:.1} before), {lost} lost"));
    tally.issued = 650;
    tally.acked = 650 - lost;
    tally.missing = lost;
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// A flood of bytes far over the budget: the flooder waits, the other is served.
fn bytes(server: &Server, loud: &str, calm: f64, tally: &mut Tally) -> anyhow::Result<(f64, u64)> {
    let line = "x".repeat(60_000);
    let body = serde_json::json!([{ "level": "INFO", "message": line, "service": "s" }]).to_string();
    let over = AtomicBool::new(false);
    let (beside, refused, taken) = std::thread::scope(|scope| {
        let flooding: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = [0_u64; 2];
                    while !over.load(Ordering::Acquire) {
                        let status =
                            server.post("/ingest/logs", loud, JSON, body.as_bytes()).map_or(0, |answer| answer.0);
                        counts[usize::from(status == 503)] += 1;
                    }
                    counts
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        let beside = honest(server, &server.sender, 150);
        over.store(true, Ordering::Release);
        let counts: Vec<[u64; 2]> = flooding.into_iter().filter_map(|flood| flood.join().ok()).collect();
        (beside, counts.iter().map(|count| count[1]).sum::<u64>(), counts.iter().map(|count| count[0]).sum::<u64>())
    });
    tell(format!("bytes: {taken} requests of the flood taken, {refused} told to wait"));
    if refused == 0 {
        tally.faults.push("a flood of bytes was not held back".to_owned());
    }
    if beside.0 > (1.5 * calm).max(BUSY_MS) {
        tally.faults.push(format!("the other tenant's p99 rose from {calm:.1} to {:.1} ms", beside.0));
    }
    Ok(beside)
}

/// Small requests, one after the other: the 99th percentile of the time to their answers in ms, and how many were
/// not taken.
fn honest(server: &Server, token: &str, count: usize) -> (f64, u64) {
    let (mut times, mut lost) = (Vec::new(), 0);
    for at in 0..count {
        let series = wire::series(&[("__name__", "honest")], at as f64, now_ms());
        let started = Instant::now();
        let answer = server.post("/api/v1/write", token, SNAPPY, &wire::body(vec![series]));
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        lost += u64::from(!answer.is_ok_and(|(status, ..)| status == 204));
    }
    times.sort_unstable_by(f64::total_cmp);
    (times.get(count * 99 / 100).copied().unwrap_or(f64::NAN), lost)
}
