//! The spans of a request, of the executor and of a query, in the trace of the caller, at a real collector: another
//! Wardroom.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::Server;

/// How long spans may take until they can be read.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn requests_the_executor_and_queries_are_in_the_trace_of_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Server::start(&dir.path().join("collector"), "", &[]).unwrap();
    let headers = format!("authorization=Bearer%20{}", collector.sender_token);
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str())];
    let server = Server::start(&dir.path().join("server"), "", &environment).unwrap();
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let send = |path: &str, body: Value| {
        let headers = [("Content-Type", "application/json"), ("traceparent", traceparent.as_str())];
        let sent = server.post(path, &server.responder_token, &headers, body.to_string().as_bytes()).unwrap();
        assert_eq!(sent.0, 200, "{}", sent.2);
    };
    send("/api/v1/sql?format=json", json!({ "query": "SELECT 1 AS one" }));
    send("/api/v1/stop-all", json!({ "reason": "test of traces" }));
    let names = || {
        let (status, text) =
            collector.get(&format!("/api/v1/traces/{TRACE}?format=json"), &collector.responder_token).unwrap();
        let spans: Vec<Value> = if status == 200 { serde_json::from_str(&text).unwrap() } else { Vec::new() };
        let mut names: Vec<(String, String)> = spans
            .iter()
            .map(|span| (span["service"].as_str().unwrap().to_owned(), span["name"].as_str().unwrap().to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    };
    let expected: Vec<(String, String)> = [
        ("wardroom", "executor"),
        ("wardroom", "query"),
        ("wardroom", "request"),
        ("wardroom-executor", "executor request"),
    ]
    .map(|(service, name)| (service.to_owned(), name.to_owned()))
    .to_vec();
    let deadline = Instant::now() + EXPORT_TIMEOUT;
    while names() != expected {
        assert!(Instant::now() < deadline, "{:?}", names());
        std::thread::sleep(Duration::from_millis(200));
    }
    let (_, metrics) = server.get("/metrics", "").unwrap();
    assert!(!metrics.contains("wardroom_trace_spans_dropped_total"), "{metrics}");
    let log = std::fs::read_to_string(server.dir.join("wardroom.log")).unwrap();
    assert!(!log.contains("exporting traces failed"), "{log}");
}
