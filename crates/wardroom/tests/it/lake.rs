//! The lake from outside: what was acknowledged stands in the tables once, as DuckDB, Polars and the deltalake package
//! read them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::server::program;
use wardroom_testing::{Server, now_ms, wire};

/// Batches go to the tables at once.
const AT_ONCE: [(&str, &str); 2] = [("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__FLUSH_STEPS", "1000000")];

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
fn settle(server: &Server) {
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
