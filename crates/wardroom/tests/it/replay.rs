//! Replay of stored telemetry, and the gold tables: the same configuration opens the same incidents.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::SyntheticTelemetry;
use wardroom_testing::remote_write::{TimeSeries, series};
use wardroom_testing::{Server, now_ms, remote_write, server};

/// A service with a high latency variance, so that a slowdown is a small one.
struct NoisyService {
    totals: BTreeMap<u32, f64>,
    step: u32,
}

impl NoisyService {
    fn next(&mut self, at_ms: i64, slow: bool) -> Vec<TimeSeries> {
        self.step += 1;
        // 0.5 to 0.9 s and back, with a period of 40 s.
        let tenths = if slow { 14 } else { 5 + (self.step / 5 % 8).min(8 - self.step / 5 % 8) };
        for bound in 1..=30_u32 {
            *self.totals.entry(bound).or_default() += if bound >= tenths { 40.0 } else { 0.0 };
        }
        let total = self.totals[&30];
        let bounds = self.totals.iter().map(|(bound, total)| (format!("{:.1}", f64::from(*bound) / 10.0), *total));
        bounds
            .chain([("+Inf".to_owned(), total)])
            .map(|(bound, total)| {
                let labels = [
                    ("__name__", "restless_duration_seconds_bucket"),
                    ("service", "restless"),
                    ("code", "200"),
                    ("le", bound.as_str()),
                ];
                series(&labels, total, at_ms)
            })
            .collect()
    }
}

fn replay(data: &Path, config: Option<&Path>) -> Value {
    let out = tempfile::tempdir().unwrap();
    let folder = |path: &Path| path.display().to_string();
    let mut arguments = vec!["replay".to_owned(), "--data".into(), folder(data), "--from".into(), "30m".into()];
    arguments.extend(["--json".into(), "--out".into(), folder(out.path())]);
    arguments.extend(config.into_iter().flat_map(|config| ["--config".to_owned(), folder(config)]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, text) = server::run(&arguments).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(out.path().join("lake/gold/incidents/_delta_log").is_dir(), "the replay did not write its tables");
    serde_json::from_str(&text).unwrap()
}

fn keys(incidents: &Value, name: &str) -> Vec<String> {
    let mut keys: Vec<_> = incidents.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().into()).collect();
    keys.sort_unstable();
    keys
}

fn poll_gold(server: &Server, table: &str, rows: usize) -> Value {
    let started = Instant::now();
    loop {
        let query = format!("SELECT * FROM gold.{table} ORDER BY ts");
        let (status, response) =
            server.post_json("/api/v1/sql", &server.responder_token, &json!({ "query": query })).unwrap();
        if status == 200 && response.as_array().unwrap().len() >= rows {
            return response;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{table}: {status} {response:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn replay_opens_the_same_incidents_as_the_gold_tables_show() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let environment = [("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__GOLD_SECONDS", "1")];
    let mut server = Server::start(dir.path(), "", &environment).unwrap();
    // Long enough for one window of service health; in the past, so that it can be sent at once.
    let mut telemetry = SyntheticTelemetry::new(now_ms() - 900_000, &["cart", "newsletter"]);
    let mut noisy = NoisyService { totals: BTreeMap::new(), step: 0 };
    for second in 0..880 {
        let slow: &[&str] = if (700..760).contains(&second) { &["cart"] } else { &[] };
        let mut body = telemetry.next_second(slow);
        body.extend(noisy.next(telemetry.at_ms, (400..460).contains(&second)));
        assert_eq!(server.write(&remote_write::body(body)).unwrap(), 204);
    }
    let deployment = json!({ "timestamp": wardroom_domain::Timestamp::from_millis(telemetry.at_ms), "service": "cart",
        "version": "2", "status": "success" });
    assert_eq!(server.post_json("/ingest/deployment", &server.sender_token, &deployment).unwrap().0, 200);

    let incidents = poll_gold(&server, "incidents", 2);
    let original = keys(&incidents, "incident");
    assert_eq!(incidents[0]["service"], "restless", "{incidents:#}");
    let health = poll_gold(&server, "service_health", 4);
    let newsletter = health.as_array().unwrap().iter().find(|row| row["service"] == "newsletter").unwrap();
    assert!((39.0..41.0).contains(&newsletter["requests_per_second"].as_f64().unwrap()), "{newsletter}");
    assert!(newsletter["latency_p99_seconds"].as_f64().unwrap() < 0.1 && newsletter["breaches"] == 0, "{newsletter}");

    // While the server is running.
    let second_replay = replay(&data, None);
    assert_eq!(keys(&second_replay["incidents"], "key"), original, "{second_replay:#}");
    assert_eq!(second_replay["missing"], json!([]));
    assert_eq!(second_replay["incidents"][0]["id"], "INC-1");
    assert_eq!(second_replay["samples"], 880 * (2 * 6 + 31));
    let insensitive = dir.path().join("insensitive.yaml");
    let settings = "detect:\n  z-warning: 6\n  z-high: 7\n  z-critical: 8\n  latency-floor-seconds: 1\n";
    std::fs::write(&insensitive, settings).unwrap();
    let fewer = replay(&data, Some(&insensitive));
    assert_eq!(fewer["incidents"].as_array().unwrap().len(), 1, "{fewer:#}");
    assert_eq!(fewer["missing"][0]["id"], "INC-1");
    assert!(fewer["anomalies"].as_u64() < second_replay["anomalies"].as_u64());

    // Gold tables are derived: replay works without them, and the server rebuilds them.
    assert_eq!(server.stop().unwrap(), Some(0));
    std::fs::remove_dir_all(data.join("lake/gold")).unwrap();
    assert_eq!(keys(&replay(&data, None)["incidents"], "key"), original);
    server.restart().unwrap();
    assert_eq!(keys(&poll_gold(&server, "incidents", 2), "incident"), original);

    // Records deleted from the bus are read from the tables.
    server.stop().unwrap();
    for entry in std::fs::read_dir(data.join("bus")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "seg") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let stored = replay(&data, None);
    assert_eq!(keys(&stored["incidents"], "key"), original, "{stored:#}");
    assert_eq!(stored["samples"], 880 * (2 * 6 + 31));
}
