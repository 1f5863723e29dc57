//! The lake from outside: what was acknowledged stands in the tables once, as DuckDB, Polars and the deltalake package
//! read them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_domain::canonical::{sha256_hex, short_hash};
use wardroom_testing::server::{program, run};
use wardroom_testing::{Server, now_ms, wire};

/// Batches go to the tables at once.
pub(crate) const AT_ONCE: [(&str, &str); 2] =
    [("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__FLUSH_STEPS", "1000000")];

/// Values whose every bit matters.
const ODD: [f64; 12] = [
    0.1,
    -0.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e308,
    5e-324,
    9_007_199_254_740_993.0,
    0.000_123_456_789,
    123_456_789_012_345.0,
    std::f64::consts::PI,
    -17.25,
];

/// What was sent: labels, time in µs, bits.
type Sent = BTreeMap<(Vec<(String, String)>, i64), u64>;

fn send(server: &Server, sent: &mut Sent, series: usize, ts_ms: i64, value: f64) {
    let labels = [("__name__", "odd_values"), ("n", &series.to_string()), ("validator_id", "val-1")];
    let pairs = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    if value.to_bits() == (-0.0_f64).to_bits() {
        // The encoder takes minus zero for nothing and leaves it out.
        let body = json!({ "metric_name": labels[0].1, "labels": { "n": labels[1].1, "validator_id": labels[2].1 },
            "value": value, "timestamp": Timestamp::from_millis(ts_ms) });
        let (status, answer) = server.json("/ingest/metrics", &server.sender, &body).unwrap();
        assert_eq!(status, 200, "{answer}");
    } else {
        let body = wire::body(vec![wire::series(&labels, value, ts_ms)]);
        assert_eq!(server.write(&body).unwrap(), 204);
    }
    sent.insert((pairs, ts_ms * 1000), value.to_bits());
}

/// Waits until the tables hold everything that was acknowledged.
pub(crate) fn settle(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, text) = server.get("/metrics", &server.responder).unwrap();
        if text.lines().any(|line| line == "wardroom_lake_lag_records 0") {
            return;
        }
        assert!(Instant::now() < deadline, "the lake does not catch up:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn outside(lake: &Path) -> Value {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(program("CLIENT_PYTHON"));
    python.arg(here.join("tests/it/clients/lake.py")).arg(lake).arg(here.join("../../docs/lake/duckdb.sql"));
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME")).env("PYTHONPATH", program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES"));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn shown(view: &Value) -> Sent {
    let mut all = Sent::new();
    for row in view["shown"].as_array().unwrap() {
        let pairs: Vec<(String, String)> = serde_json::from_value(row[1].clone()).unwrap();
        let bits = u64::from_str_radix(row[3].as_str().unwrap(), 16).unwrap();
        assert_eq!(all.insert((pairs, row[2].as_i64().unwrap()), bits), None, "one row for each sample: {row}");
    }
    all
}

/// A trace of two spans, as a JavaScript sender would tell it.
pub(crate) fn trace(id: &str, start_ns: i64) -> Value {
    let span = |span: &str, parent: &str, kind: u8, code: u8| {
        json!({ "traceId": id, "spanId": span, "parentSpanId": parent, "name": "GET /", "kind": kind,
            "startTimeUnixNano": start_ns.to_string(), "endTimeUnixNano": (start_ns + 2_000_000_001).to_string(),
            "attributes": [], "status": { "code": code } })
    };
    let name = json!([{ "key": "service.name", "value": { "stringValue": "web" } }]);
    let spans = [span("00000000000000a1", "", 2, 0), span("00000000000000a2", "00000000000000a1", 3, 2)];
    json!({ "resourceSpans": [{ "resource": { "attributes": name }, "scopeSpans": [{ "spans": spans }] }] })
}

/// Every request, once, and its bytes where the row says; how many there are.
fn named_requests(dir: &Path, view: &Value) -> usize {
    let bronze = view["bronze"].as_array().unwrap();
    let offsets: Vec<_> = bronze.iter().filter_map(|row| row[0].as_u64()).collect();
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "{offsets:?}");
    for row in bronze {
        let segment = std::fs::read(dir.join("data/bus").join(row[4].as_str().unwrap())).unwrap();
        let [size, position, bytes] = [3, 5, 6].map(|at| row[at].as_u64().unwrap() as usize);
        let body = &segment[position + bytes - size..position + bytes];
        assert_eq!(row[2], sha256_hex(body));
        if row[1] == "json_deployment" {
            assert_eq!(row[7].as_str().map(str::as_bytes), Some(body));
        }
    }
    bronze.len()
}

#[test]
fn log_lines_spans_and_deployments_stand_in_their_tables_once_through_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &AT_ONCE).unwrap();
    let start = now_ms() - 600_000;
    let at = |ms: i64| Timestamp::from_nanos((start + ms) * 1_000_000 + 123_456);
    let mut sent = BTreeMap::<&str, Vec<Value>>::new();
    let mut lines = 0_i64;
    for round in 0..5_i64 {
        for each in 0..4 {
            let (ms, message) = (round * 1000 + each, format!("took {each}7 ms in round={round}a \u{1f}\u{e9}"));
            let log = json!({ "timestamp": at(ms), "level": "WARN", "message": message, "service": "web",
                "labels": { "region": "eu" } });
            let deployment = json!({ "timestamp": at(ms), "service": "web", "version": format!("1.{round}.{each}"),
                "status": "success", "metadata": { "team": "a" } });
            let id = format!("{:032x}", round * 10 + each + 1);
            let bodies =
                [("/ingest/logs", log), ("/ingest/deployment", deployment), ("/v1/traces", trace(&id, at(ms).nanos()))];
            for (path, body) in &bodies {
                // As a sender repeats it that got no answer.
                for _ in 0..1 + each % 2 {
                    assert_eq!(server.json(path, &server.sender, body).unwrap().0, 200, "{path}");
                }
            }
            let us = at(ms).nanos() / 1000;
            sent.entry("logs").or_default().push(json!([
                us,
                456,
                "web",
                "warning",
                message,
                short_hash("took <*> ms in round=<*> \u{1f}\u{e9}"),
                [format!("{each}7"), format!("{round}a")],
                "eu",
                "main",
                true,
                true,
                true
            ]));
            sent.entry("deployments").or_default().push(json!([
                us,
                "web",
                format!("1.{round}.{each}"),
                "success",
                "a"
            ]));
            for (span, parent, kind, failed) in [
                ("00000000000000a1", Value::Null, "server", false),
                ("00000000000000a2", json!("00000000000000a1"), "client", true),
            ] {
                let row = json!([us, 456, 2_000_000_001_i64, id, span, parent, "web", "GET /", kind, failed]);
                sent.entry("spans").or_default().push(row);
            }
            lines += 1;
        }
        // At rest, on its way, and not begun.
        match round % 3 {
            0 => settle(&server),
            1 => std::thread::sleep(Duration::from_millis(1100)),
            _ => {}
        }
        server.kill();
        server.restart().unwrap();
    }
    // One sample of two is too old, and is not taken.
    let old = [("__name__", "x"), ("n", "old")];
    let body = wire::body(vec![
        wire::series(&[("__name__", "x"), ("n", "new")], 1.0, start),
        wire::series(&old, 1.0, start - 72 * 3_600_000),
    ]);
    assert_eq!(server.write(&body).unwrap(), 400);
    settle(&server);
    let view = outside(&dir.path().join("data/lake"));
    assert_eq!(view["quarantine"], json!([["prometheus_remote_write", "too_old", 1, 1, null]]));
    let requests = 5 * 3 * (1 + 2 + 1 + 2);
    assert_eq!(named_requests(dir.path(), &view), requests + 1, "every request that was answered");
    for (table, rows) in &mut sent {
        let mut found = view[table].as_array().unwrap().clone();
        rows.sort_by_key(Value::to_string);
        found.sort_by_key(Value::to_string);
        assert_eq!(&found, rows, "{table}");
    }
    let templates = view["log_templates"].as_array().unwrap();
    assert_eq!(templates.iter().filter_map(|row| row[3].as_i64()).sum::<i64>(), lines, "{templates:?}");
    assert!(templates.iter().all(|row| row[2] == "took <*> ms in round=<*> \u{1f}\u{e9}"), "{templates:?}");
}

#[test]
fn outside_readers_find_every_sample_once_through_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &AT_ONCE).unwrap();
    let (mut sent, mut rows, start) = (Sent::new(), 0, now_ms() - 600_000);
    for round in 0..4_i64 {
        for (at, value) in ODD.iter().enumerate() {
            send(&server, &mut sent, at, start + round * 60_000, *value);
            // A late one, and one that comes twice.
            send(&server, &mut sent, at, start + round * 60_000 - 90_000, *value);
            send(&server, &mut sent, at, start + round * 60_000, *value);
            rows += 2;
        }
        if round % 2 == 0 {
            settle(&server);
        }
        server.kill();
        server.restart().unwrap();
    }
    settle(&server);
    let view = outside(&dir.path().join("data/lake"));
    let shown = shown(&view);
    let differ: Vec<_> = sent.iter().filter(|(key, bits)| shown.get(key) != Some(bits)).collect();
    assert!(differ.is_empty() && shown.len() == sent.len(), "{} of {}: {differ:?}", shown.len(), sent.len());
    for reader in ["duckdb", "polars", "deltalake"] {
        assert_eq!(view[reader], rows, "{reader} counts no row twice");
    }
    assert_eq!(view["series"], ODD.len());
    for (version, counts) in view["versions"].as_object().unwrap() {
        let counts: Vec<u64> = serde_json::from_value(counts.clone()).unwrap();
        assert!(counts.iter().all(|count| *count == counts[0]), "version {version}: {counts:?}");
    }
}

/// As the bus does once its retention is over: nothing but the tables knows the first requests then.
fn forget(dir: &Path) {
    let bus = dir.join("data/bus");
    let mut segments: Vec<_> = std::fs::read_dir(&bus).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    segments.pop();
    segments.iter().for_each(|segment| std::fs::remove_file(segment).unwrap());
    std::fs::remove_dir_all(dir.join("data/checkpoint")).unwrap();
}

/// What `wardroom samples dump` prints.
fn dumped(server: &Server, more: &[&str]) -> Vec<Value> {
    let mut command = Command::new(program("WARDROOM_BIN"));
    command.args(["samples", "dump", "--format", "json"]).args(more);
    let output = command.env("WARDROOM_TOKEN", &server.responder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A request with a native histogram of the minute, an exemplar in it.
fn latency(start_ms: i64, minute: i64) -> Value {
    let nanos = ((start_ms + minute * 60_000) * 1_000_000).to_string();
    let exemplar = json!({ "timeUnixNano": nanos, "asDouble": 0.5 + minute as f64, "spanId": "00000000000000a1",
        "traceId": format!("{minute:032x}"), "filteredAttributes": [] });
    let point = json!({ "timeUnixNano": nanos, "startTimeUnixNano": nanos, "count": (minute + 4).to_string(), "sum": -0.25,
        "scale": 3, "zeroCount": "1", "positive": { "offset": -2, "bucketCounts": [(minute + 1).to_string(), "0", "2"] },
        "negative": { "offset": 0, "bucketCounts": [] }, "exemplars": [exemplar], "attributes": [] });
    let data = json!({ "aggregationTemporality": 2, "dataPoints": [point] });
    let metric = json!({ "name": "latency", "unit": "s", "exponentialHistogram": data });
    let name = json!([{ "key": "service.name", "value": { "stringValue": "web" } }]);
    json!({ "resourceMetrics": [{ "resource": { "attributes": name }, "scopeMetrics": [{ "metrics": [metric] }] }] })
}

#[test]
fn histograms_and_exemplars_are_found_after_the_bus_has_forgotten_them() {
    let dir = tempfile::tempdir().unwrap();
    let small = [AT_ONCE[0], AT_ONCE[1], ("WARDROOM_BUS__SEGMENT_BYTES", "4096")];
    let mut server = Server::start(dir.path(), "", &small).unwrap();
    let start = now_ms() / 1000 * 1000 - 6 * 3_600_000;
    let send = |server: &Server, minutes: std::ops::Range<i64>| {
        for minute in minutes {
            // The second as a sender repeats it that got no answer.
            for _ in 0..1 + i32::from(minute == 1) {
                let (status, text) = server.json("/v1/metrics", &server.sender, &latency(start, minute)).unwrap();
                assert_eq!(status, 200, "{text}");
            }
        }
    };
    send(&server, 0..20);
    settle(&server);
    server.kill();
    forget(dir.path());
    server.restart().unwrap();
    // Some of this is in the tables, some on its way there, some on the bus only.
    send(&server, 20..23);
    settle(&server);
    send(&server, 23..25);
    let expected = |minute: i64| (start + minute * 60_000, minute as f64 + 4.0, json!([minute as f64 + 1.0, 0.0, 2.0]));
    let data = dir.path().join("data").display().to_string();
    for place in [["--url", server.url.as_str()], ["--data", data.as_str()]] {
        let rows = dumped(&server, &[&place[..], &["--match", "latency_seconds"]].concat());
        let found = rows.iter().map(|row| {
            let histogram = &row["histogram"];
            assert_eq!(histogram["sum_bits"], format!("{:016x}", (-0.25_f64).to_bits()));
            let counts = histogram["positive"]["counts"].clone();
            (row["ts_ms"].as_i64().unwrap(), histogram["count"].as_f64().unwrap(), counts)
        });
        assert_eq!(found.collect::<Vec<_>>(), (0..25).map(expected).collect::<Vec<_>>(), "{place:?}");
    }
    let asked = format!("query=latency_seconds&start={}&end={}", start / 1000, start / 1000 + 86_400);
    let (status, text) = server.get(&format!("/api/v1/query_exemplars?{asked}"), &server.responder).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let exemplars = found["data"][0]["exemplars"].as_array().unwrap_or_else(|| panic!("{status} {text}"));
    let traces: Vec<_> = exemplars.iter().map(|exemplar| exemplar["labels"]["trace_id"].clone()).collect();
    assert_eq!(traces, (0..25).map(|minute| json!(format!("{minute:032x}"))).collect::<Vec<_>>());
    settle(&server);
    let view = outside(&dir.path().join("data/lake"));
    let each = |row: &dyn Fn(i64) -> Value| Value::from((0..25).map(row).collect::<Vec<_>>());
    let us = |minute: i64| (start + minute * 60_000) * 1000;
    let counts = |minute: i64| json!([minute as f64 + 1.0, 0.0, 2.0]);
    let row = |minute| json!([us(minute), "latency_seconds", minute as f64 + 4.0, -0.25, 3, [-1, 3], counts(minute)]);
    assert_eq!(view["histograms"], each(&row), "each once, as DuckDB reads them");
    let row = |minute| json!([us(minute), "latency_seconds", format!("{minute:032x}"), 0.5 + minute as f64]);
    assert_eq!(view["exemplars"], each(&row));
}

/// The bus forgets what the tables have: what was sent is found whole all the same, over every boundary.
#[test]
fn samples_are_found_after_the_bus_has_forgotten_them() {
    let dir = tempfile::tempdir().unwrap();
    let small = [AT_ONCE[0], AT_ONCE[1], ("WARDROOM_BUS__SEGMENT_BYTES", "4096")];
    let mut server = Server::start(dir.path(), "", &small).unwrap();
    let (mut sent, start) = (Sent::new(), now_ms() / 1000 * 1000 - 6 * 3_600_000);
    let mut fill = |server: &Server, minutes: std::ops::Range<i64>| {
        for minute in minutes {
            for (at, value) in ODD.iter().enumerate() {
                send(server, &mut sent, at, start + minute * 60_000, *value);
            }
        }
        sent.len()
    };
    fill(&server, 0..10);
    settle(&server);
    server.kill();
    forget(dir.path());
    server.restart().unwrap();
    // Some of this is in the tables, some on the bus only.
    fill(&server, 10..12);
    let count = fill(&server, 12..14);
    let dump = |more: &[&str]| {
        let mut found = Sent::new();
        for row in dumped(&server, more) {
            let labels = row["labels"].as_object().unwrap().iter();
            let pairs: Vec<_> = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().into())).collect();
            let bits = u64::from_str_radix(row["bits"].as_str().unwrap(), 16).unwrap();
            assert_eq!(found.insert((pairs, row["ts_ms"].as_i64().unwrap() * 1000), bits), None);
        }
        found
    };
    let data = dir.path().join("data");
    for found in [dump(&["--url", &server.url]), dump(&["--data", &data.display().to_string()])] {
        assert_eq!(found.len(), count);
        assert!(found == sent, "every bit comes back");
    }
    let one = dump(&["--url", &server.url, "--match", "odd_values{n=\"3\"}"]);
    assert_eq!(one.len(), 14);
    let steps = format!("start={}&end={}&step=60", start / 1000, start / 1000 + 840);
    let path = format!("/api/v1/samples?match[]=odd_values%7Bn%3D%220%22%7D&{steps}");
    let (status, text) = server.get(&path, &server.responder).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, found["series"][0]["samples"].as_array().map(Vec::len)), (200, Some(15)), "{text}");
}

/// What the server would do by itself at some time, told first and done then, beside it.
#[test]
fn tables_are_looked_after_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [AT_ONCE[0], ("WARDROOM_LAKE__MAINTAIN_SECONDS", "100000")];
    let server = Server::start(dir.path(), "", &environment).unwrap();
    let now = now_ms();
    // Two batches of a day that is over, and one of today.
    for at_ms in [now - 30 * 3_600_000, now - 30 * 3_600_000 + 1000, now] {
        let body = wire::body(vec![wire::series(&[("__name__", "up")], 1.0, at_ms)]);
        assert_eq!(server.write(&body).unwrap(), 204);
        settle(&server);
    }
    let data = dir.path().join("data").display().to_string();
    let chores = |more: &[&str]| {
        let mut words = vec!["lake", "maintain", "--json", "--data", data.as_str()];
        words.extend(more);
        let (code, text) = run(&words).unwrap();
        assert_eq!(code, Some(0), "{text}");
        let said: Value = serde_json::from_str(&text).unwrap();
        let all = said["chores"].as_array().unwrap().clone();
        let of_samples = all.into_iter().filter(|chore| chore["table"] == "silver.samples");
        of_samples.map(|chore| (chore["what"].clone(), chore["files"].clone())).collect::<Vec<_>>()
    };
    let due = [(json!("merge"), json!(2))];
    assert_eq!(chores(&["--dry-run"]), due);
    assert_eq!(chores(&["--dry-run"]), due, "a look changes nothing");
    assert_eq!(chores(&[]), due);
    assert_eq!(chores(&["--dry-run"]), [], "it is done");
    let query = json!({ "query": "SELECT count(*) AS rows FROM samples" });
    assert_eq!(server.json("/api/v1/sql", &server.responder, &query).unwrap(), (200, json!([{ "rows": 3 }])));
    assert_eq!(run(&["lake", "maintain", "--data", &data, "--sweep-after", "23h"]).unwrap().0, Some(1));
    assert_eq!(run(&["lake", "maintain", "--data", &data, "--sweep-after", "23h", "--force"]).unwrap().0, Some(0));
}
