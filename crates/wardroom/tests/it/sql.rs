//! Questions in SQL, as people and programs ask them.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{create_tenant_token, program};
use wardroom_testing::{Server, now_ms, wire};

use crate::lake::{AT_ONCE, settle};

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
