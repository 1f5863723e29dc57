//! Limits of names: what is beyond one is refused with its setting, counted, and accepted after the limit was raised.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::{Server, now_ms, remote_write};

const SNAPPY_HEADERS: [(&str, &str); 2] = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
/// The low limit of each kind.
const LIMIT: usize = 20;
/// Names sent of each kind.
const SENT: usize = 50;

/// Checks that the records beyond the limit were refused, and returns the detail.
fn check_refusal(status: u16, problem: &Value, setting: &str) {
    assert_eq!((status, &problem["code"]), (400, &json!("entity_limit")), "{problem:#}");
    assert_eq!((&problem["accepted"], &problem["rejected"]), (&json!(LIMIT), &json!(SENT - LIMIT)), "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().ends_with(setting), "{problem:#}");
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn names_beyond_a_limit_are_refused_counted_and_accepted_after_it_was_raised() {
    let dir = tempfile::tempdir().unwrap();
    let limit = LIMIT.to_string();
    let low_limits = [
        ("WARDROOM_HEAD__MAX_HISTOGRAM_FAMILIES_PER_SERVICE", limit.as_str()),
        ("WARDROOM_HEAD__MAX_DEPLOYMENTS", &limit),
        ("WARDROOM_HEAD__MAX_SERVICES", &limit),
        ("WARDROOM_LAKE__FLUSH_SECONDS", "1"),
    ];
    let mut server = Server::start(dir.path(), "", &low_limits).unwrap();
    let series = (0..SENT).map(|index| {
        let name = format!("m{index:02}_seconds_bucket");
        remote_write::series(&[("__name__", &name), ("service", "s0"), ("le", "+Inf")], 1.0, now_ms())
    });
    let body = remote_write::body(series.collect());
    let (status, _, text) = server.post("/api/v1/write", &server.sender_token, &SNAPPY_HEADERS, &body).unwrap();
    let problem = serde_json::from_str(&text).unwrap();
    check_refusal(status, &problem, "head.max-histogram-families-per-service");
    let deployment = |index: usize| json!({ "service": "s0", "version": format!("v{index}"), "status": "success" });
    let deployments: Vec<_> = (0..SENT).map(deployment).collect();
    let (status, problem) = server.post_json("/ingest/deployment", &server.sender_token, &json!(deployments)).unwrap();
    check_refusal(status, &problem, "head.max-deployments");
    let line = |index: usize| json!({ "level": "INFO", "message": "m", "service": format!("s{index}") });
    let lines: Vec<_> = (0..SENT).map(line).collect();
    let (status, problem) = server.post_json("/ingest/logs", &server.sender_token, &json!(lines)).unwrap();
    check_refusal(status, &problem, "head.max-services");
    wait_for("the accepted deployments are known", || {
        let (_, text) = server.get("/api/v1/deployments", &server.responder_token).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        found["deployments"].as_array().unwrap().len() == LIMIT
    });
    let (_, metrics) = server.get("/metrics", "").unwrap();
    for name in ["histogram_families_per_service", "deployments", "services"] {
        let line = format!("wardroom_limited_records_total{{limit=\"{name}\"}} {}", SENT - LIMIT);
        assert!(metrics.lines().any(|known| known == line), "{line}: {metrics}");
    }
    let mut offset = None;
    wait_for("the refused samples are in the quarantine", || {
        let query = "SELECT \"offset\" FROM silver.quarantine WHERE reason = 'entity_limit' ORDER BY 1";
        let body = json!({ "query": query });
        let (_, rows) = server.post_json("/api/v1/sql", &server.responder_token, &body).unwrap();
        offset = rows.as_array().and_then(|rows| rows.first()).and_then(|row| row["offset"].as_u64());
        offset.is_some()
    });
    server.set_environment("WARDROOM_HEAD__MAX_HISTOGRAM_FAMILIES_PER_SERVICE", "1000");
    server.restart().unwrap();
    let path = format!("/api/v1/quarantine/{}/redrive", offset.unwrap());
    let (status, response) = server.post_json(&path, &server.responder_token, &json!({})).unwrap();
    assert_eq!(status, 200, "{response:#}");
    wait_for("all series are known", || {
        let (_, text) = server.get("/api/v1/label/__name__/values", &server.responder_token).unwrap();
        text.matches("_seconds_bucket").count() == SENT
    });
}
