//! A server whose tables are out of reach: it takes in, says what it cannot answer, and has everything once they are back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{Bucket, Server, now_ms};

use crate::lake::AT_ONCE;

fn readings(server: &Server, from: i64, count: i64) {
    for at in from..from + count {
        let body = json!({ "metric_name": "depth", "value": at, "timestamp": Timestamp::from_millis(at) });
        let (status, answer) = server.json("/ingest/metrics", &server.sender, &body).unwrap();
        assert_eq!(status, 200, "{answer}");
    }
}

fn rows(server: &Server) -> (u16, Value) {
    let query = json!({ "query": "SELECT count(*) AS rows, count(DISTINCT ts) AS moments FROM samples" });
    server.json("/api/v1/sql", &server.responder, &query).unwrap()
}

/// What it says of its tables once it is ready: it takes in, so it will be.
fn lake(server: &Server) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (status, text) = server.get("/readyz", &server.sender).unwrap();
        if status == 200 {
            return serde_json::from_str::<Value>(&text).unwrap()["lake"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_starts_without_its_store_and_has_its_tables_once_it_is_back() {
    let (bucket, dir) = (Bucket::start().unwrap(), tempfile::tempdir().unwrap());
    let mut environment = AT_ONCE.to_vec();
    environment.extend([
        ("WARDROOM_LAKE__URI", "s3://wardroom/tables"),
        ("AWS_ENDPOINT_URL", &bucket.url),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "testtest"),
    ]);
    let old = now_ms() - 3_600_000;
    let mut server = Server::start(dir.path(), "", &environment).unwrap();
    readings(&server, old, 5);
    crate::lake::settle(&server);
    assert_eq!(rows(&server), (200, json!([{ "rows": 5, "moments": 5 }])));

    bucket.manners.away.store(true, Ordering::Release);
    server.kill();
    // Of the readings nothing is left but in the tables.
    std::fs::remove_dir_all(dir.path().join("data/checkpoint")).unwrap();
    let started = Instant::now();
    server.restart().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "listens after {:?}", started.elapsed());
    assert_ne!(lake(&server), "ok");
    readings(&server, now_ms(), 5);
    let refused = |what: &str, (status, problem): (u16, Value)| {
        assert_eq!((status, problem["code"].as_str()), (503, Some("lake_unavailable")), "{what}: {problem}");
        assert!(
            problem["detail"].as_str().is_some_and(|why| why.contains("s3://wardroom/tables")),
            "{what}: {problem}"
        );
    };
    refused("SQL", rows(&server));
    let get = |path: &str| {
        let (status, text) = server.get(path, &server.responder).unwrap();
        (status, serde_json::from_str(&text).unwrap())
    };
    refused("a named question", get("/api/v1/ask/check_recent_deployments"));
    refused("samples", get("/api/v1/samples?match[]=depth"));
    refused("exemplars", get("/api/v1/query_exemplars?query=depth"));
    refused("lines", get("/api/v1/logs?query=error"));

    let before = server.processes();
    bucket.manners.away.store(false, Ordering::Release);
    let deadline = Instant::now() + Duration::from_secs(60);
    // Between the two servers nobody listens.
    while !server.get("/readyz", &server.sender).is_ok_and(|(_, text)| text.contains(r#""lake":"ok""#)) {
        assert!(Instant::now() < deadline, "no tables after the store is back");
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = server.processes();
    let pid = |of: &[(String, u32)], name: &str| of.iter().find(|(found, _)| found == name).map(|(_, pid)| *pid);
    assert_ne!(pid(&before, "server"), pid(&after, "server"), "the supervisor started another: {before:?} {after:?}");
    assert_eq!(pid(&before, "executor"), pid(&after, "executor"), "and let the executor be");
    assert!(!server.ended());
    crate::lake::settle(&server);
    assert_eq!(rows(&server), (200, json!([{ "rows": 10, "moments": 10 }])), "each reading once");
}
