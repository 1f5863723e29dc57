//! The lake tables: every acknowledged record is in them exactly once, as read by DuckDB, Polars and the deltalake
//! package.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_domain::canonical::{sha256_hex, short_hash};
use wardroom_testing::server::{program, run};
use wardroom_testing::{Server, now_ms, remote_write};

/// Settings that flush to the tables without batching.
pub(crate) const FLUSH_IMMEDIATELY: [(&str, &str); 2] =
    [("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__FLUSH_STEPS", "1000000")];

/// Values that lose bits if they are converted carelessly.
const TRICKY_VALUES: [f64; 12] = [
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

/// Samples: (labels, time in µs) → IEEE 754 bits.
type SampleBits = BTreeMap<(Vec<(String, String)>, i64), u64>;

fn send(server: &Server, sent: &mut SampleBits, series: usize, ts_ms: i64, value: f64) {
    let labels = [("__name__", "odd_values"), ("n", &series.to_string()), ("validator_id", "val-1")];
    let pairs = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    if value.to_bits() == (-0.0_f64).to_bits() {
        // The protobuf encoder omits -0.0 as the default value.
        let body = json!({ "metric_name": labels[0].1, "labels": { "n": labels[1].1, "validator_id": labels[2].1 },
            "value": value, "timestamp": Timestamp::from_millis(ts_ms) });
        let (status, response) = server.post_json("/ingest/metrics", &server.sender_token, &body).unwrap();
        assert_eq!(status, 200, "{response}");
    } else {
        let body = remote_write::body(vec![remote_write::series(&labels, value, ts_ms)]);
        assert_eq!(server.write(&body).unwrap(), 204);
    }
    sent.insert((pairs, ts_ms * 1000), value.to_bits());
}

/// Waits until everything acknowledged is in the tables.
pub(crate) fn wait_for_lake(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, text) = server.get("/metrics", &server.responder_token).unwrap();
        if text.lines().any(|line| line == "wardroom_lake_lag_records 0") {
            return;
        }
        assert!(Instant::now() < deadline, "the lake lags:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads the tables with the Python clients.
fn read_externally(lake: &Path) -> Value {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(program("CLIENT_PYTHON"));
    python.arg(crate_dir.join("tests/it/clients/lake.py")).arg(lake).arg(crate_dir.join("../../docs/lake/duckdb.sql"));
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME")).env("PYTHONPATH", program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES"));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The samples as DuckDB returns them.
fn duckdb_samples(view: &Value) -> SampleBits {
    let mut all = SampleBits::new();
    for row in view["samples"].as_array().unwrap() {
        let pairs: Vec<(String, String)> = serde_json::from_value(row[1].clone()).unwrap();
        let bits = u64::from_str_radix(row[3].as_str().unwrap(), 16).unwrap();
        assert_eq!(all.insert((pairs, row[2].as_i64().unwrap()), bits), None, "duplicate row: {row}");
    }
    all
}

/// An OTLP/JSON request with a trace of two spans.
pub(crate) fn otlp_trace(id: &str, start_ns: i64) -> Value {
    let span = |span: &str, parent: &str, kind: u8, code: u8| {
        json!({ "traceId": id, "spanId": span, "parentSpanId": parent, "name": "GET /", "kind": kind,
            "startTimeUnixNano": start_ns.to_string(), "endTimeUnixNano": (start_ns + 2_000_000_001).to_string(),
            "attributes": [], "status": { "code": code } })
    };
    let name = json!([{ "key": "service.name", "value": { "stringValue": "web" } }]);
    let spans = [span("00000000000000a1", "", 2, 0), span("00000000000000a2", "00000000000000a1", 3, 2)];
    json!({ "resourceSpans": [{ "resource": { "attributes": name }, "scopeSpans": [{ "spans": spans }] }] })
}

/// Checks that each bronze row is unique and locates the bytes of its request. Returns the number of rows.
fn check_bronze_rows(dir: &Path, view: &Value) -> usize {
    let bronze = view["bronze"].as_array().unwrap();
    let offsets: Vec<_> = bronze.iter().filter_map(|row| row[0].as_u64()).collect();
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "{offsets:?}");
    for row in bronze {
        let segment = std::fs::read(dir.join("data/bus").join(row[4].as_str().unwrap())).unwrap();
        let [size, position, bytes] = [3, 5, 6].map(|index| row[index].as_u64().unwrap() as usize);
        let body = &segment[position + bytes - size..position + bytes];
        assert_eq!(row[2], sha256_hex(body));
        if row[1] == "json_deployment" {
            assert_eq!(row[7].as_str().map(str::as_bytes), Some(body));
        }
    }
    bronze.len()
}

/// Sends a log line, a deployment and a trace, and adds the expected table rows to `sent`.
fn send_events(server: &Server, sent: &mut BTreeMap<&str, Vec<Value>>, at: Timestamp, round: i64, event: i64) {
    let message = format!("took {event}7 ms in round={round}a \u{1f}\u{e9}");
    let log = json!({ "timestamp": at, "level": "WARN", "message": message, "service": "web",
        "labels": { "region": "eu" } });
    let deployment = json!({ "timestamp": at, "service": "web", "version": format!("1.{round}.{event}"),
        "status": "success", "metadata": { "team": "a" } });
    let id = format!("{:032x}", round * 10 + event + 1);
    let bodies =
        [("/ingest/logs", log), ("/ingest/deployment", deployment), ("/v1/traces", otlp_trace(&id, at.nanos()))];
    for (path, body) in &bodies {
        // A retry, as after a lost response.
        for _ in 0..1 + event % 2 {
            assert_eq!(server.post_json(path, &server.sender_token, body).unwrap().0, 200, "{path}");
        }
    }
    let us = at.nanos() / 1000;
    sent.entry("logs").or_default().push(json!([
        us,
        456,
        "web",
        "warning",
        message,
        short_hash("took <*> ms in round=<*> \u{1f}\u{e9}"),
        [format!("{event}7"), format!("{round}a")],
        "eu",
        "main",
        true,
        true,
        true
    ]));
    let version = format!("1.{round}.{event}");
    sent.entry("deployments").or_default().push(json!([us, "web", version, "success", "a"]));
    let row = json!([us, "deployment", "ingest", "web", version, "success", "a", "service", "web", null]);
    sent.entry("events").or_default().push(row);
    for (span, parent, kind, failed) in [
        ("00000000000000a1", Value::Null, "server", false),
        ("00000000000000a2", json!("00000000000000a1"), "client", true),
    ] {
        let row = json!([us, 456, 2_000_000_001_i64, id, span, parent, "web", "GET /", kind, failed]);
        sent.entry("spans").or_default().push(row);
    }
}

#[test]
fn logs_spans_and_deployments_are_stored_once_through_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &FLUSH_IMMEDIATELY).unwrap();
    let start = now_ms() - 600_000;
    let at = |ms: i64| Timestamp::from_nanos((start + ms) * 1_000_000 + 123_456);
    let mut sent = BTreeMap::<&str, Vec<Value>>::new();
    let mut lines = 0_i64;
    for round in 0..5_i64 {
        for event in 0..4 {
            send_events(&server, &mut sent, at(round * 1000 + event), round, event);
            lines += 1;
        }
        // Kill after, during and before the flush.
        match round % 3 {
            0 => wait_for_lake(&server),
            1 => std::thread::sleep(Duration::from_millis(1100)),
            _ => {}
        }
        server.kill();
        server.restart().unwrap();
    }
    // One of two samples is too old and rejected.
    let old = [("__name__", "x"), ("n", "old")];
    let body = remote_write::body(vec![
        remote_write::series(&[("__name__", "x"), ("n", "new")], 1.0, start),
        remote_write::series(&old, 1.0, start - 72 * 3_600_000),
    ]);
    assert_eq!(server.write(&body).unwrap(), 400);
    wait_for_lake(&server);
    let view = read_externally(&dir.path().join("data/lake"));
    assert_eq!(view["quarantine"], json!([["prometheus_remote_write", "too_old", 1, 1, null]]));
    let requests = 5 * 3 * (1 + 2 + 1 + 2);
    assert_eq!(check_bronze_rows(dir.path(), &view), requests + 1, "every acknowledged request");
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
fn external_readers_find_every_sample_once_through_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &FLUSH_IMMEDIATELY).unwrap();
    let (mut sent, mut rows, start) = (SampleBits::new(), 0, now_ms() - 600_000);
    for round in 0..4_i64 {
        for (index, value) in TRICKY_VALUES.iter().enumerate() {
            send(&server, &mut sent, index, start + round * 60_000, *value);
            // A late sample, and a duplicate.
            send(&server, &mut sent, index, start + round * 60_000 - 90_000, *value);
            send(&server, &mut sent, index, start + round * 60_000, *value);
            rows += 2;
        }
        if round % 2 == 0 {
            wait_for_lake(&server);
        }
        server.kill();
        server.restart().unwrap();
    }
    wait_for_lake(&server);
    let view = read_externally(&dir.path().join("data/lake"));
    let found = duckdb_samples(&view);
    let differ: Vec<_> = sent.iter().filter(|(key, bits)| found.get(key) != Some(bits)).collect();
    assert!(differ.is_empty() && found.len() == sent.len(), "{} of {}: {differ:?}", found.len(), sent.len());
    for reader in ["duckdb", "polars", "deltalake"] {
        assert_eq!(view[reader], rows, "{reader} counts duplicate rows");
    }
    assert_eq!(view["series"], TRICKY_VALUES.len());
    for (version, counts) in view["versions"].as_object().unwrap() {
        let counts: Vec<u64> = serde_json::from_value(counts.clone()).unwrap();
        assert!(counts.iter().all(|count| *count == counts[0]), "version {version}: {counts:?}");
    }
}

/// Deletes all but the newest bus segment, as retention does, and the checkpoint: only the tables keep older requests.
fn expire_bus(dir: &Path) {
    let bus = dir.join("data/bus");
    let mut segments: Vec<_> = std::fs::read_dir(&bus).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    segments.pop();
    segments.iter().for_each(|segment| std::fs::remove_file(segment).unwrap());
    std::fs::remove_dir_all(dir.join("data/checkpoint")).unwrap();
}

/// Runs `wardroom samples dump`.
fn dump_samples(server: &Server, extra_arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(program("WARDROOM_BIN"));
    command.args(["samples", "dump", "--format", "json"]).args(extra_arguments);
    let output = command.env("WARDROOM_TOKEN", &server.responder_token).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An OTLP/JSON request with a native histogram and an exemplar of one minute.
fn otlp_histogram(start_ms: i64, minute: i64) -> Value {
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
fn histograms_and_exemplars_survive_the_retention_of_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let small = [FLUSH_IMMEDIATELY[0], FLUSH_IMMEDIATELY[1], ("WARDROOM_BUS__SEGMENT_BYTES", "4096")];
    let mut server = Server::start(dir.path(), "", &small).unwrap();
    let start = now_ms() / 1000 * 1000 - 6 * 3_600_000;
    let send = |server: &Server, minutes: std::ops::Range<i64>| {
        for minute in minutes {
            // The second request is retried, as after a lost response.
            for _ in 0..1 + i32::from(minute == 1) {
                let (status, text) =
                    server.post_json("/v1/metrics", &server.sender_token, &otlp_histogram(start, minute)).unwrap();
                assert_eq!(status, 200, "{text}");
            }
        }
    };
    send(&server, 0..20);
    wait_for_lake(&server);
    server.kill();
    expire_bus(dir.path());
    server.restart().unwrap();
    // Part of these are in the tables, part on the bus only.
    send(&server, 20..23);
    wait_for_lake(&server);
    send(&server, 23..25);
    let expected = |minute: i64| (start + minute * 60_000, minute as f64 + 4.0, json!([minute as f64 + 1.0, 0.0, 2.0]));
    let data = dir.path().join("data").display().to_string();
    for place in [["--url", server.url.as_str()], ["--data", data.as_str()]] {
        let rows = dump_samples(&server, &[&place[..], &["--match", "latency_seconds"]].concat());
        let found = rows.iter().map(|row| {
            let histogram = &row["histogram"];
            assert_eq!(histogram["sum_bits"], format!("{:016x}", (-0.25_f64).to_bits()));
            let counts = histogram["positive"]["counts"].clone();
            (row["ts_ms"].as_i64().unwrap(), histogram["count"].as_f64().unwrap(), counts)
        });
        assert_eq!(found.collect::<Vec<_>>(), (0..25).map(expected).collect::<Vec<_>>(), "{place:?}");
    }
    let parameters = format!("query=latency_seconds&start={}&end={}", start / 1000, start / 1000 + 86_400);
    let (status, text) = server.get(&format!("/api/v1/query_exemplars?{parameters}"), &server.responder_token).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let exemplars = found["data"][0]["exemplars"].as_array().unwrap_or_else(|| panic!("{status} {text}"));
    let traces: Vec<_> = exemplars.iter().map(|exemplar| exemplar["labels"]["trace_id"].clone()).collect();
    assert_eq!(traces, (0..25).map(|minute| json!(format!("{minute:032x}"))).collect::<Vec<_>>());
    wait_for_lake(&server);
    let view = read_externally(&dir.path().join("data/lake"));
    let array_of = |row: &dyn Fn(i64) -> Value| Value::from((0..25).map(row).collect::<Vec<_>>());
    let us = |minute: i64| (start + minute * 60_000) * 1000;
    let counts = |minute: i64| json!([minute as f64 + 1.0, 0.0, 2.0]);
    let row = |minute| json!([us(minute), "latency_seconds", minute as f64 + 4.0, -0.25, 3, [-1, 3], counts(minute)]);
    assert_eq!(view["histograms"], array_of(&row), "histograms in DuckDB");
    let row = |minute| json!([us(minute), "latency_seconds", format!("{minute:032x}"), 0.5 + minute as f64]);
    assert_eq!(view["exemplars"], array_of(&row));
}

/// Queries combine tables and bus without gaps or duplicates.
#[test]
fn samples_survive_the_retention_of_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let small = [FLUSH_IMMEDIATELY[0], FLUSH_IMMEDIATELY[1], ("WARDROOM_BUS__SEGMENT_BYTES", "4096")];
    let mut server = Server::start(dir.path(), "", &small).unwrap();
    let (mut sent, start) = (SampleBits::new(), now_ms() / 1000 * 1000 - 6 * 3_600_000);
    let mut fill = |server: &Server, minutes: std::ops::Range<i64>| {
        for minute in minutes {
            for (index, value) in TRICKY_VALUES.iter().enumerate() {
                send(server, &mut sent, index, start + minute * 60_000, *value);
            }
        }
        sent.len()
    };
    fill(&server, 0..10);
    wait_for_lake(&server);
    server.kill();
    expire_bus(dir.path());
    server.restart().unwrap();
    // Part of these are in the tables, part on the bus only.
    fill(&server, 10..12);
    let count = fill(&server, 12..14);
    let dump = |extra_arguments: &[&str]| {
        let mut found = SampleBits::new();
        for row in dump_samples(&server, extra_arguments) {
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
        assert!(found == sent, "samples differ from what was sent");
    }
    let one = dump(&["--url", &server.url, "--match", "odd_values{n=\"3\"}"]);
    assert_eq!(one.len(), 14);
    let steps = format!("start={}&end={}&step=60", start / 1000, start / 1000 + 840);
    let path = format!("/api/v1/samples?match[]=odd_values%7Bn%3D%220%22%7D&{steps}");
    let (status, text) = server.get(&path, &server.responder_token).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, found["series"][0]["samples"].as_array().map(Vec::len)), (200, Some(15)), "{text}");
}

#[test]
fn maintenance_runs_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [FLUSH_IMMEDIATELY[0], ("WARDROOM_LAKE__MAINTAIN_SECONDS", "100000")];
    let server = Server::start(dir.path(), "", &environment).unwrap();
    let now = now_ms();
    // Two batches of a past day, and one of today.
    for at_ms in [now - 30 * 3_600_000, now - 30 * 3_600_000 + 1000, now] {
        let body = remote_write::body(vec![remote_write::series(&[("__name__", "up")], 1.0, at_ms)]);
        assert_eq!(server.write(&body).unwrap(), 204);
        wait_for_lake(&server);
    }
    let data = dir.path().join("data").display().to_string();
    let maintain = |extra_arguments: &[&str]| {
        let mut arguments = vec!["lake", "maintain", "--json", "--data", data.as_str()];
        arguments.extend(extra_arguments);
        let (code, text) = run(&arguments).unwrap();
        assert_eq!(code, Some(0), "{text}");
        let output: Value = serde_json::from_str(&text).unwrap();
        let all = output["chores"].as_array().unwrap().clone();
        let tasks = all.into_iter().filter(|task| task["table"] == "silver.samples");
        tasks.map(|task| (task["what"].clone(), task["files"].clone())).collect::<Vec<_>>()
    };
    let due = [(json!("merge"), json!(2))];
    assert_eq!(maintain(&["--dry-run"]), due);
    assert_eq!(maintain(&["--dry-run"]), due, "the dry run changed something");
    assert_eq!(maintain(&[]), due);
    assert_eq!(maintain(&["--dry-run"]), [], "nothing is due after maintenance");
    let query = json!({ "query": "SELECT count(*) AS rows FROM samples" });
    assert_eq!(
        server.post_json("/api/v1/sql", &server.responder_token, &query).unwrap(),
        (200, json!([{ "rows": 3 }]))
    );
    assert_eq!(run(&["lake", "maintain", "--data", &data, "--sweep-after", "23h"]).unwrap().0, Some(1));
    assert_eq!(run(&["lake", "maintain", "--data", &data, "--sweep-after", "23h", "--force"]).unwrap().0, Some(0));
    a_damaged_file_is_told(&server, dir.path());
}

/// Flips a bit of the samples of today, in the footer and in a column.
fn a_damaged_file_is_told(server: &Server, dir: &Path) {
    let data = dir.join("data").display().to_string();
    let verify = || {
        let (code, text) = run(&["lake", "verify", "--json", "--data", &data]).unwrap();
        (code, serde_json::from_str::<Value>(&text).unwrap())
    };
    let sum = json!({ "query": "SELECT sum(value) AS sum FROM metrics" });
    let query = || server.post_json("/api/v1/sql", &server.responder_token, &sum).unwrap();
    let (code, found) = verify();
    assert_eq!((code, &found["ok"], &found["damaged"]), (Some(0), &json!(true), &json!([])));
    assert_eq!(query(), (200, json!([{ "sum": 3.0 }])));
    let days = std::fs::read_dir(dir.join("data/lake/silver/samples/tenant=main")).unwrap().flatten();
    let today = days.map(|day| day.path()).max().unwrap();
    let files: Vec<_> = std::fs::read_dir(today).unwrap().flatten().map(|file| file.path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let (intact, name) = (std::fs::read(file).unwrap(), file.file_name().unwrap().to_str().unwrap());
    for position in [intact.len() - 100, 4] {
        let mut damaged = intact.clone();
        damaged[position] ^= 1;
        std::fs::write(file, damaged).unwrap();
        let (code, found) = verify();
        assert_eq!((code, found["damaged"].as_array().map(Vec::len)), (Some(1), Some(1)), "{found}");
        assert!(found["damaged"][0]["file"].as_str().unwrap().ends_with(name), "{found}");
    }
    let (status, problem) = query();
    assert_eq!((status, &problem["code"]), (500, &json!("lake_damaged")), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(name) && detail.contains("column series_id of row group 0"), "{problem}");
    let (_, ready) = server.get("/readyz", "").unwrap();
    assert!(ready.contains("damaged files: 1"), "{ready}");
    let (_, metrics) = server.get("/metrics", &server.responder_token).unwrap();
    assert!(metrics.lines().any(|line| line == "wardroom_lake_damaged_files 1"), "{metrics}");
    std::fs::write(file, intact).unwrap();
    assert_eq!(query(), (200, json!([{ "sum": 3.0 }])), "an intact copy is used at once");
    let (table, elsewhere) = (dir.join("data/lake/bronze/telemetry"), dir.join("elsewhere"));
    std::fs::rename(&table, &elsewhere).unwrap();
    let (code, found) = verify();
    assert_eq!((code, &found["damaged"][0]["file"]), (Some(1), &json!("bronze/telemetry")), "{found}");
    std::fs::rename(&elsewhere, &table).unwrap();
    assert_eq!(verify().0, Some(0));
}

/// What detection infers, and what rows are about.
#[test]
fn entities_and_inferred_events_are_in_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [FLUSH_IMMEDIATELY[0], FLUSH_IMMEDIATELY[1], ("WARDROOM_LAKE__GOLD_SECONDS", "1")];
    let mut server = Server::start(dir.path(), "", &environment).unwrap();
    let labels = json!({ "k8s.namespace.name": "shop", "deployment.environment.name": "prod" });
    let message = "config reloaded key=pool.size from=50 to=5";
    let log = json!({ "level": "INFO", "message": message, "service": "cart", "labels": labels });
    assert_eq!(server.post_json("/ingest/logs", &server.sender_token, &log).unwrap().0, 200);
    let labels = [("__name__", "queue_depth"), ("namespace", "shop"), ("pod", "worker-6d7f8b556-2cwmz")];
    let body = remote_write::body(vec![remote_write::series(&labels, 1.0, now_ms())]);
    assert_eq!(server.write(&body).unwrap(), 204);
    let entity = "entity_kind, entity_name, namespace, environment";
    let queries = [
        (
            format!("SELECT kind, source, service, {entity}, attributes['to'] AS v FROM events"),
            json!([{ "kind": "setting", "source": "inferred", "service": "cart", "entity_kind": "service",
                "entity_name": "cart", "namespace": "shop", "environment": "prod", "v": "5" }]),
        ),
        (
            format!("SELECT service, {entity} FROM logs"),
            json!([{ "service": "cart", "entity_kind": "service", "entity_name": "cart", "namespace": "shop",
                "environment": "prod" }]),
        ),
        (
            format!("SELECT name, {entity}, cluster_name FROM series"),
            json!([{ "name": "queue_depth", "entity_kind": "workload", "entity_name": "worker", "namespace": "shop",
                "environment": null, "cluster_name": null }]),
        ),
    ];
    for round in 0..2 {
        wait_for_lake(&server);
        for (query, expected) in &queries {
            let deadline = Instant::now() + Duration::from_secs(20);
            let found = || {
                let query = json!({ "query": query });
                server.post_json("/api/v1/sql?format=json", &server.responder_token, &query).unwrap().1
            };
            while found() != *expected {
                assert!(Instant::now() < deadline, "{round}: {query}: {}", found());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        // A restart infers the event again, and does not write it again.
        server.kill();
        server.restart().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
    }
}
