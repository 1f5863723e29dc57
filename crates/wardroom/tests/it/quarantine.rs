//! Redrive: quarantined records are accepted, exactly once, after the limit that rejected them is raised.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{Server, now_ms};

fn sql(server: &Server, query: &str) -> Vec<Value> {
    let (status, response) =
        server.post_json("/api/v1/sql", &server.responder_token, &json!({ "query": query })).unwrap();
    assert_eq!(status, 200, "{response:#}");
    response.as_array().unwrap().clone()
}

/// Polls until the query returns at least `min_rows` rows.
fn poll_rows(server: &Server, query: &str, min_rows: usize) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let found = sql(server, query);
        if found.len() >= min_rows {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{query}: {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn quarantined_offset(server: &Server, reason: &str) -> u64 {
    let query = format!("SELECT \"offset\" FROM silver.quarantine WHERE reason = '{reason}'");
    poll_rows(server, &query, 1)[0]["offset"].as_u64().unwrap()
}

fn redrive(server: &Server, offset: u64) -> (u16, Value) {
    server.post_json(&format!("/api/v1/quarantine/{offset}/redrive"), &server.responder_token, &json!({})).unwrap()
}

#[test]
fn quarantined_records_are_accepted_once_after_the_limit_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let low_limits = [
        ("WARDROOM_SOURCES__MAX_MESSAGE_BYTES", "20"),
        ("WARDROOM_HEAD__MAX_SERIES", "1"),
        // Nothing is flushed before the restart, after which the rows are read from the bus again.
        ("WARDROOM_LAKE__FLUSH_SECONDS", "600"),
    ];
    let mut server = Server::start(dir.path(), "", &low_limits).unwrap();
    let at = Timestamp::from_millis(now_ms() - 5000).to_string();
    let line = |message: &str| json!({ "timestamp": at, "level": "ERROR", "message": message, "service": "a" });
    let lines = json!([line("short"), line("much too long for this limit"), line("fits")]);
    let (status, response) = server.post_json("/ingest/logs", &server.sender_token, &lines).unwrap();
    assert_eq!((status, &response["accepted"], &response["rejected"]), (400, &json!(2), &json!(1)), "{response:#}");
    let sample = |name: &str| json!({ "timestamp": at, "metric_name": name, "value": 1.5, "service": "a" });
    let (status, _) =
        server.post_json("/ingest/metrics", &server.sender_token, &json!([sample("one"), sample("two")])).unwrap();
    assert_eq!(status, 400);
    let (logs, metrics) = (quarantined_offset(&server, "label_limit"), quarantined_offset(&server, "series_limit"));
    let (status, response) = redrive(&server, logs);
    assert_eq!((status, &response["code"]), (400, &json!("label_limit")), "the limit is unchanged: {response:#}");
    assert_eq!(redrive(&server, 4711).0, 404);
    server.set_environment("WARDROOM_SOURCES__MAX_MESSAGE_BYTES", "100");
    server.set_environment("WARDROOM_HEAD__MAX_SERIES", "10");
    server.set_environment("WARDROOM_LAKE__FLUSH_SECONDS", "1");
    server.restart().unwrap();
    // At once, while the quarantine table does not have its newest rows yet.
    for offset in [logs, metrics] {
        let (status, response) = redrive(&server, offset);
        assert_eq!(status, 200, "{response:#}");
        assert!(response["redriven_as"].as_u64().unwrap() > offset);
        assert_eq!(redrive(&server, offset).1, response, "a repeated redrive is idempotent");
    }
    poll_rows(&server, "SELECT message FROM logs", 3);
    let row_counts = sql(&server, "SELECT message, count(*) AS rows FROM logs GROUP BY 1 ORDER BY 1");
    let row_counts: Vec<_> =
        row_counts.iter().map(|row| (row["message"].as_str().unwrap(), row["rows"].as_u64().unwrap())).collect();
    assert_eq!(row_counts, [("fits", 1), ("much too long for this limit", 1), ("short", 1)]);
    let values =
        poll_rows(&server, "SELECT metric_name, value FROM metrics WHERE metric_name IN ('one', 'two') ORDER BY 1", 2);
    assert_eq!(values.iter().map(|row| &row["metric_name"]).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(sql(&server, "SELECT * FROM silver.quarantine").len(), 2, "the redrive added quarantine rows");
    let (_, dead_letters) = server.get("/api/v1/dead-letters", &server.responder_token).unwrap();
    assert_eq!(dead_letters.matches("\"group\":\"quarantine\"").count(), 2, "{dead_letters}");
}
