//! Questions in SQL, as people and programs ask them.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{create_tenant_token, program};
use wardroom_testing::{Server, now_ms, wire};

use crate::lake::{AT_ONCE, settle, trace};

fn ask(server: &Server, token: &str, query: &str) -> (u16, Value) {
    server.json("/api/v1/sql", token, &json!({ "query": query })).unwrap()
}

#[test]
fn the_tables_answer_over_http_and_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &AT_ONCE).unwrap();
    let data = dir.path().join("data");
    let other = create_tenant_token(&data, "them", "viewer", "other").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    let log = json!({ "level": "ERROR", "message": "pool exhausted", "service": "payments" });
    assert_eq!(server.json("/ingest/logs", &server.sender, &log).unwrap().0, 200);
    let body = wire::body(vec![wire::series(&[("__name__", "up"), ("job", "web")], 0.1, now_ms())]);
    assert_eq!(server.write(&body).unwrap(), 204);
    settle(&server);

    let query = "SELECT service, severity, message FROM logs";
    let line = json!([{ "service": "payments", "severity": "high", "message": "pool exhausted" }]);
    assert_eq!(ask(&server, &server.responder, query), (200, line.clone()));
    assert_eq!(ask(&server, &other, query), (200, json!([])), "another tenant's");
    let view = "SELECT metric_name, labels['job'] AS job, value FROM metrics";
    assert_eq!(
        ask(&server, &server.responder, view),
        (200, json!([{ "metric_name": "up", "job": "web", "value": 0.1 }]))
    );
    assert_eq!(ask(&server, &server.sender, query).0, 403, "who sends need not read");
    let (status, kind, text) =
        server.post("/api/v1/sql", &server.responder, &[("Accept", "text/csv")], query.as_bytes()).unwrap();
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
        let (found, problem) = ask(&server, &server.responder, query);
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{query}: {problem}");
    }

    let mut cli = Command::new(program("WARDROOM_BIN"));
    cli.args(["sql", query, "--format", "json", "--url", &server.url, "--token", &server.responder]);
    let said = cli.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&said.stdout).unwrap(), line);
}

fn get(server: &Server, token: &str, path: &str) -> (u16, Value) {
    let (status, text) = server.get(path, token).unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// What came a second ago is there, long before it is in the tables; and once, when it is.
#[test]
fn logs_traces_and_named_questions_are_answered_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &[("WARDROOM_LAKE__FLUSH_SECONDS", "5")]).unwrap();
    let data = dir.path().join("data");
    let other = create_tenant_token(&data, "them", "viewer", "other").unwrap();
    let started = Instant::now();
    for (level, message, region) in
        [("INFO", "ready", "eu"), ("ERROR", "pool of 17 exhausted", "eu"), ("ERROR", "pool of 20 exhausted", "us")]
    {
        let log = json!({ "level": level, "message": message, "service": "payments", "labels": { "region": region } });
        assert_eq!(server.json("/ingest/logs", &server.sender, &log).unwrap().0, 200);
    }
    let deployment = json!({ "service": "payments", "version": "2.4.1", "status": "success" });
    assert_eq!(server.json("/ingest/deployment", &server.sender, &deployment).unwrap().0, 200);
    let id = "0123456789abcdef0123456789abcdef";
    let spans = trace(id, now_ms() * 1_000_000);
    assert_eq!(server.json("/v1/traces", &server.sender, &spans).unwrap().0, 200);
    let check = || {
        let messages = |token: &str, filter: &str| {
            let (status, found) = get(&server, token, &format!("/api/v1/logs?query={filter}"));
            assert_eq!(status, 200, "{found}");
            let lines = found.as_array().unwrap().clone();
            lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = ["pool of 20 exhausted", "pool of 17 exhausted", "ready"];
        assert_eq!(messages(&server.responder, ""), all);
        assert_eq!(messages(&server.responder, "service=payments%20level%3E%3Derror%20%22of%2017%22"), all[1..2]);
        assert_eq!(messages(&server.responder, "region!=eu"), all[..1]);
        assert_eq!(messages(&server.responder, "region=eu%20pool"), all[1..2]);
        assert!(messages(&other, "").is_empty(), "another tenant's");
        let (_, spans) = get(&server, &server.responder, &format!("/api/v1/traces/{id}"));
        let names: Vec<_> = spans.as_array().unwrap().iter().map(|span| span["kind"].clone()).collect();
        assert_eq!(names, ["server", "client"]);
        let (_, found) = get(&server, &server.responder, "/api/v1/ask/correlate_error_logs?service=payments");
        assert_eq!((&found[0]["lines"], &found[0]["severity"], &found[1]), (&json!(2), &json!("high"), &Value::Null));
        let (_, found) = get(&server, &server.responder, "/api/v1/ask/check_recent_deployments?service=payments");
        assert_eq!((&found[0]["version"], &found[1]), (&json!("2.4.1"), &Value::Null));
        let (_, found) = get(&server, &server.responder, "/api/v1/ask/detect_anomalies");
        assert_eq!((&found[0]["service"], &found[0]["requests"]), (&json!("web"), &json!(1)), "{found}");
    };
    std::thread::sleep(Duration::from_millis(2500));
    check();
    assert!(started.elapsed() < Duration::from_secs(5), "too late to show anything");
    settle(&server);
    check();
    for (path, status, code) in [
        ("/api/v1/logs?query=%22open", 400, "bad_filter"),
        ("/api/v1/logs?start=yesterday", 400, "bad_time"),
        ("/api/v1/logs?limit=many", 400, "bad_parameter"),
        ("/api/v1/traces/xyz", 400, "bad_trace_id"),
        ("/api/v1/ask/nothing", 404, "no_such_question"),
    ] {
        let (found, problem) = get(&server, &server.responder, path);
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{path}: {problem}");
    }
    for (words, expected) in [
        (vec!["logs", "service=payments level>=error", "\"of 20\""], "pool of 20 exhausted"),
        (vec!["trace", id], "GET /"),
        (vec!["ask", "check_recent_deployments", "--service", "payments", "--since", "1h"], "2.4.1"),
        (vec!["ask"], "detect_anomalies"),
        (vec!["lake"], "silver.logs               1              3"),
    ] {
        let mut cli = Command::new(program("WARDROOM_BIN"));
        let said = cli.args(&words).args(["--url", &server.url, "--token", &server.responder]).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && text.contains(expected), "{words:?}: {text}");
    }
}

#[test]
fn a_question_ends_with_whoever_asked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &AT_ONCE).unwrap();
    let running = || {
        let (_, text) = server.get("/metrics", &server.responder).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("wardroom_queries_running "));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap()
    };
    let wait_for = |count: u64| {
        let until = Instant::now() + Duration::from_secs(10);
        while running() != count {
            assert!(Instant::now() < until, "{} queries run, not {count}", running());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let query = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 1";
    let mut connection = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /api/v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{query}",
        server.responder,
        query.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    wait_for(1);
    drop(connection);
    wait_for(0);
}
