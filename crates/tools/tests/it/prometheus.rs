//! `query_prometheus` against a real Prometheus.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Outcome;
use wardroom_respond::{Run, ToolError};
use wardroom_testing::server::program;

use super::{call, tool};

struct Prometheus {
    url: String,
    child: Child,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a Prometheus that scrapes itself every second.
#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn prometheus(dir: &Path) -> Prometheus {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = dir.join("prometheus.yml");
    let scrape = json!({ "global": { "scrape_interval": "1s" },
        "scrape_configs": [{ "job_name": "self", "static_configs": [{ "targets": [format!("127.0.0.1:{port}")] }] }] });
    std::fs::write(&config, scrape.to_string()).unwrap();
    let child = Command::new(program("PROMETHEUS_BIN"))
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Prometheus { url: format!("http://127.0.0.1:{port}"), child }
}

#[test]
fn queries_are_answered_by_a_real_prometheus_and_limited() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = prometheus(dir.path());
    let targets =
        json!([{ "tool": "query_prometheus", "name": "main", "url": prometheus.url, "output-bytes": 20_000 }]);
    let tool = tool(&targets);
    let read = |operation: &str, arguments: Value| {
        tool.read(&call("query_prometheus", operation, "main", arguments), Duration::from_secs(10))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let up = loop {
        // Before the first scrape there is no server, or no series.
        if let Ok(up) = read("instant", json!({ "query": "up" }))
            && up["series_total"] == 1
        {
            break up;
        }
        assert!(Instant::now() < deadline, "Prometheus does not scrape itself");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(up["type"], "vector");
    assert_eq!(up["result"][0]["value"][1], "1");
    let range = read("range", json!({ "query": "up", "minutes": 5, "step_seconds": 1 })).unwrap();
    assert_eq!((range["type"].as_str(), range["result"][0]["values"][0][1].as_str()), (Some("matrix"), Some("1")));
    let scalar = read("instant", json!({ "query": "1 + 1", "time_seconds": 1000 })).unwrap();
    assert_eq!(scalar, json!({ "type": "scalar", "series_total": 1, "result": [1000, "2"], "warnings": null }));
    let few = read("instant", json!({ "query": "{job=\"self\"}", "series": 3 })).unwrap();
    assert_eq!(few["result"].as_array().unwrap().len(), 3);
    assert!(few["series_total"].as_u64().unwrap() > 100);
    let large = read("instant", json!({ "query": "{job=\"self\"}", "series": 1000 })).unwrap();
    assert!(large.as_str().is_some_and(|text| text.ends_with("more bytes)") && text.len() < 20_100), "{large}");
    for (operation, arguments, reason) in [
        ("instant", json!({ "query": "up{" }), "parse error"),
        ("range", json!({ "query": "up", "minutes": 40000, "step_seconds": 1 }), "longer step"),
        ("instant", json!({ "query": "x".repeat(5000) }), "at most 4000"),
        ("instant", json!({}), "query: the field is missing"),
    ] {
        let error = read(operation, arguments).unwrap_err();
        assert!(matches!(&error, ToolError::Invalid(text) if text.contains(reason)), "{error}");
    }
    // As a step of a plan it is harmless, and says so.
    let query = call("query_prometheus", "instant", "main", json!({ "query": "up" }));
    let dry_run = tool.plan(&query).unwrap();
    assert_eq!((dry_run.affected, dry_run.risk.as_str()), (Some(0), "low"));
    let applied = tool.execute(&query, &Run::new(&dry_run.precondition, "key")).unwrap();
    assert!(applied.outcome == Outcome::Applied && applied.output.contains("\"vector\""), "{applied:?}");
    assert_eq!(tool.probe(&query, &dry_run.precondition, "key"), Ok(Outcome::NotApplied), "it may be repeated");
}
