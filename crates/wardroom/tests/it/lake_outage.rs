//! The object store of the lake is unavailable: the server ingests, returns 503 for queries, and recovers afterwards.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{FakeObjectStore, Server, now_ms};

use crate::lake::FLUSH_IMMEDIATELY;

fn send_samples(server: &Server, from: i64, count: i64) {
    for ts_ms in from..from + count {
        let body = json!({ "metric_name": "depth", "value": ts_ms, "timestamp": Timestamp::from_millis(ts_ms) });
        let (status, response) = server.post_json("/ingest/metrics", &server.sender_token, &body).unwrap();
        assert_eq!(status, 200, "{response}");
    }
}

fn rows(server: &Server) -> (u16, Value) {
    let query = json!({ "query": "SELECT count(*) AS rows, count(DISTINCT ts) AS timestamps FROM samples" });
    server.post_json("/api/v1/sql", &server.responder_token, &query).unwrap()
}

/// Returns the state of the lake once the server is ready; it becomes ready without the lake.
fn lake_status(server: &Server) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (status, text) = server.get("/readyz", &server.sender_token).unwrap();
        if status == 200 {
            return serde_json::from_str::<Value>(&text).unwrap()["lake"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn starts_without_the_object_store_and_recovers_when_it_returns() {
    let (bucket, dir) = (FakeObjectStore::start().unwrap(), tempfile::tempdir().unwrap());
    let mut environment = FLUSH_IMMEDIATELY.to_vec();
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
    send_samples(&server, old, 5);
    crate::lake::wait_for_lake(&server);
    assert_eq!(rows(&server), (200, json!([{ "rows": 5, "timestamps": 5 }])));

    bucket.faults.unavailable.store(true, Ordering::Release);
    server.kill();
    // Without the checkpoint, the samples exist in the tables only.
    std::fs::remove_dir_all(dir.path().join("data/checkpoint")).unwrap();
    let started = Instant::now();
    server.restart().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "listening after {:?}", started.elapsed());
    assert_ne!(lake_status(&server), "ok");
    send_samples(&server, now_ms(), 5);
    let assert_unavailable = |what: &str, (status, problem): (u16, Value)| {
        assert_eq!((status, problem["code"].as_str()), (503, Some("lake_unavailable")), "{what}: {problem}");
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains("s3://wardroom/tables")),
            "{what}: {problem}"
        );
    };
    assert_unavailable("SQL", rows(&server));
    let get = |path: &str| {
        let (status, text) = server.get(path, &server.responder_token).unwrap();
        (status, serde_json::from_str(&text).unwrap())
    };
    assert_unavailable("named query", get("/api/v1/ask/check_recent_deployments"));
    assert_unavailable("samples", get("/api/v1/samples?match[]=depth"));
    assert_unavailable("exemplars", get("/api/v1/query_exemplars?query=depth"));
    assert_unavailable("logs", get("/api/v1/logs?query=error"));

    let before = server.processes();
    bucket.faults.unavailable.store(false, Ordering::Release);
    let deadline = Instant::now() + Duration::from_secs(60);
    // Between the two server processes, connections are refused.
    while !server.get("/readyz", &server.sender_token).is_ok_and(|(_, text)| text.contains(r#""lake":"ok""#)) {
        assert!(Instant::now() < deadline, "the lake is still unavailable after the store returned");
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = server.processes();
    let pid = |processes: &[(String, u32)], name: &str| {
        processes.iter().find(|(found, _)| found == name).map(|(_, pid)| *pid)
    };
    assert_ne!(pid(&before, "server"), pid(&after, "server"), "the server was not restarted: {before:?} {after:?}");
    assert_eq!(pid(&before, "executor"), pid(&after, "executor"), "the executor was restarted");
    assert!(!server.has_exited());
    crate::lake::wait_for_lake(&server);
    assert_eq!(rows(&server), (200, json!([{ "rows": 10, "timestamps": 10 }])), "each sample once");
}
