//! SQL, named queries, log search and traces, through the API and the command line.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{create_tenant_token, program};
use wardroom_testing::{Server, now_ms, remote_write};

use crate::lake::{FLUSH_IMMEDIATELY, otlp_trace, wait_for_lake};

fn run_sql(server: &Server, token: &str, query: &str) -> (u16, Value) {
    server.post_json("/api/v1/sql", token, &json!({ "query": query })).unwrap()
}

#[test]
fn sql_runs_through_the_api_and_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &FLUSH_IMMEDIATELY).unwrap();
    let data = dir.path().join("data");
    let other = create_tenant_token(&data, "them", "viewer", "other").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    let log = json!({ "level": "ERROR", "message": "pool exhausted", "service": "payments" });
    assert_eq!(server.post_json("/ingest/logs", &server.sender_token, &log).unwrap().0, 200);
    let body = remote_write::body(vec![remote_write::series(&[("__name__", "up"), ("job", "web")], 0.1, now_ms())]);
    assert_eq!(server.write(&body).unwrap(), 204);
    wait_for_lake(&server);

    let query = "SELECT service, severity, message FROM logs";
    let line = json!([{ "service": "payments", "severity": "high", "message": "pool exhausted" }]);
    assert_eq!(run_sql(&server, &server.responder_token, query), (200, line.clone()));
    assert_eq!(run_sql(&server, &other, query), (200, json!([])), "rows of another tenant are visible");
    let view = "SELECT metric_name, labels['job'] AS job, value FROM metrics";
    assert_eq!(
        run_sql(&server, &server.responder_token, view),
        (200, json!([{ "metric_name": "up", "job": "web", "value": 0.1 }]))
    );
    assert_eq!(run_sql(&server, &server.sender_token, query).0, 403, "a sender may not read");
    let (status, kind, text) =
        server.post("/api/v1/sql", &server.responder_token, &[("Accept", "text/csv")], query.as_bytes()).unwrap();
    assert_eq!(
        (status, kind.as_str(), text.as_str()),
        (200, "text/csv; charset=utf-8", "service,severity,message\npayments,high,pool exhausted\n")
    );
    for (query, status, code) in [
        ("SELECT nothing FROM logs", 400, "bad_query"),
        ("DROP TABLE logs", 400, "not_a_query"),
        ("COPY logs TO '/tmp/x.csv'", 400, "not_a_query"),
        ("SELECT * FROM generate_series(1, 1000000)", 422, "query_too_large"),
        ("SELECT 1 / (value - 1) FROM generate_series(1, 2)", 422, "query_failed"),
    ] {
        let (found, problem) = run_sql(&server, &server.responder_token, query);
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{query}: {problem}");
    }

    let mut cli = Command::new(program("WARDROOM_BIN"));
    cli.args(["sql", query, "--format", "json", "--url", &server.url, "--token", &server.responder_token]);
    let output = cli.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), line);
}

fn get(server: &Server, token: &str, path: &str) -> (u16, Value) {
    let (status, text) = server.get(path, token).unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Wrong parameters are refused; unknown ones, and unknown fields, are named in the response.
fn check_parameters(server: &Server, id: &str) {
    for (path, status, code) in [
        ("/api/v1/logs?query=%22open", 400, "bad_filter"),
        ("/api/v1/logs?start=yesterday", 400, "bad_time"),
        ("/api/v1/logs?limit=many", 400, "bad_parameter"),
        ("/api/v1/traces/xyz", 400, "bad_trace_id"),
        ("/api/v1/ask/trace?trace=xyz", 400, "bad_trace_id"),
        ("/api/v1/ask/nothing", 404, "no_such_question"),
        ("/api/v1/ask/detect_anomalies?format=yaml", 400, "bad_format"),
        ("/api/v1/incidents?limit=many", 400, "bad_parameter"),
        (&format!("/api/v1/traces/{id}?format=yaml"), 400, "bad_format"),
    ] {
        let (found, problem) = get(server, &server.responder_token, path);
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{path}: {problem}");
    }
    let (_, csv) = get(server, &server.responder_token, &format!("/api/v1/traces/{id}?format=csv&limit=1"));
    assert_eq!(csv.as_str().unwrap().trim_end().lines().count(), 2, "a header and one span: {csv}");
    for path in ["/api/v1/incidents?limt=5", "/api/v1/dead-letters?limt=5", "/api/v1/series?match[]=up&limt=5"] {
        let (status, answer) = get(server, &server.responder_token, path);
        let warning = answer["warnings"][0].as_str().unwrap_or_default();
        assert!(status == 200 && warning.starts_with("unknown parameter ignored: limt"), "{path}: {answer}");
    }
    let unknown = json!({ "service": "other", "version": "1", "sttus": "success" });
    let (status, answer) = server.post_json("/ingest/deployment", &server.sender_token, &unknown).unwrap();
    assert!(status == 200 && answer["warnings"][0].as_str().unwrap().contains(": sttus; known"), "{answer}");
}

/// Results include records that are not flushed to the tables yet, and have no duplicates after the flush.
#[test]
fn logs_traces_and_named_queries_include_unflushed_records() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &[("WARDROOM_LAKE__FLUSH_SECONDS", "8")]).unwrap();
    let data = dir.path().join("data");
    let other = create_tenant_token(&data, "them", "viewer", "other").unwrap();
    let started = Instant::now();
    for (level, message, region) in
        [("INFO", "ready", "eu"), ("ERROR", "pool of 17 exhausted", "eu"), ("ERROR", "pool of 20 exhausted", "us")]
    {
        let log = json!({ "level": level, "message": message, "service": "payments", "labels": { "region": region } });
        assert_eq!(server.post_json("/ingest/logs", &server.sender_token, &log).unwrap().0, 200);
    }
    let deployment = json!({ "service": "payments", "version": "2.4.1", "status": "success" });
    assert_eq!(server.post_json("/ingest/deployment", &server.sender_token, &deployment).unwrap().0, 200);
    let id = "000000000000000000a3456789abcdef";
    let spans = otlp_trace(id, now_ms() * 1_000_000);
    assert_eq!(server.post_json("/v1/traces", &server.sender_token, &spans).unwrap().0, 200);
    let check = || {
        let messages = |token: &str, filter: &str| {
            let (status, found) = get(&server, token, &format!("/api/v1/logs?query={filter}"));
            assert_eq!(status, 200, "{found}");
            let lines = found.as_array().unwrap().clone();
            lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = ["pool of 20 exhausted", "pool of 17 exhausted", "ready"];
        assert_eq!(messages(&server.responder_token, ""), all);
        assert_eq!(messages(&server.responder_token, "service=payments%20level%3E%3Derror%20%22of%2017%22"), all[1..2]);
        assert_eq!(messages(&server.responder_token, "region!=eu"), all[..1]);
        assert_eq!(messages(&server.responder_token, "region=eu%20pool"), all[1..2]);
        assert!(messages(&other, "").is_empty(), "rows of another tenant are visible");
        let (_, spans) = get(&server, &server.responder_token, &format!("/api/v1/traces/{id}"));
        let names: Vec<_> = spans.as_array().unwrap().iter().map(|span| span["kind"].clone()).collect();
        assert_eq!(names, ["server", "client"]);
        for spelling in [&*id.to_ascii_uppercase(), id.split_at(16).1, id.split_at(1).1, id.trim_start_matches('0')] {
            let path = format!("/api/v1/traces/{spelling}");
            assert_eq!(get(&server, &server.responder_token, &path).1, spans, "{spelling}");
        }
        let query =
            "SELECT message, labels['region'] AS region FROM logs WHERE service = 'payments' ORDER BY 1 LIMIT 1";
        let expected = json!([{ "message": "pool of 17 exhausted", "region": "eu" }]);
        assert_eq!(run_sql(&server, &server.responder_token, query), (200, expected));
        let (_, found) = get(&server, &server.responder_token, "/api/v1/ask/correlate_error_logs?service=payments");
        assert_eq!((&found[0]["lines"], &found[0]["severity"], &found[1]), (&json!(2), &json!("high"), &Value::Null));
        let (_, found) = get(&server, &server.responder_token, "/api/v1/ask/check_recent_deployments?service=payments");
        assert_eq!((&found[0]["version"], &found[1]), (&json!("2.4.1"), &Value::Null));
        let (_, found) = get(&server, &server.responder_token, "/api/v1/ask/detect_anomalies");
        assert_eq!((&found[0]["service"], &found[0]["requests"]), (&json!("web"), &json!(1)), "{found}");
    };
    let mut sql = Command::new(program("WARDROOM_BIN"));
    sql.args(["sql", "SELECT count(*) FROM silver.samples", "--url", &server.url, "--token", &server.responder_token]);
    let errors = String::from_utf8(sql.output().unwrap().stderr).unwrap();
    assert!(errors.starts_with("warning: samples of the newest "), "{errors}");
    std::thread::sleep(Duration::from_millis(2000));
    check();
    assert!(started.elapsed() < Duration::from_secs(8), "the check ran after the flush");
    wait_for_lake(&server);
    check();
    check_parameters(&server, id);
    for (arguments, expected) in [
        (vec!["logs", "service=payments level>=error", "\"of 20\""], "pool of 20 exhausted"),
        (vec!["trace", id], "GET /"),
        (vec!["trace", id, "--format", "csv"], "ts,duration_ns,service,name"),
        (vec!["trace", id, "--format", "json"], "[{\""),
        (vec!["ask", "--format", "json"], "[{\"name\":\"detect_anomalies\""),
        (vec!["ask", "check_recent_deployments", "--service", "payments", "--since", "1h"], "2.4.1"),
        (vec!["ask"], "detect_anomalies"),
        (vec!["lake", "-o", "yaml"], "table: silver.logs\n  files: 1\n  rows: 3\n"),
    ] {
        let mut cli = Command::new(program("WARDROOM_BIN"));
        let output =
            cli.args(&arguments).args(["--url", &server.url, "--token", &server.responder_token]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn query_is_cancelled_when_the_client_disconnects() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &FLUSH_IMMEDIATELY).unwrap();
    let running_queries = || {
        let (_, text) = server.get("/metrics", &server.responder_token).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("wardroom_queries_running "));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap()
    };
    let wait_for = |count: u64| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while running_queries() != count {
            assert!(Instant::now() < deadline, "{} queries run, not {count}", running_queries());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let query = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 1";
    let mut connection = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /api/v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{query}",
        server.responder_token,
        query.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    wait_for(1);
    drop(connection);
    wait_for(0);
}
