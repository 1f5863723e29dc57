//! A stored stretch once more: the same configuration finds the same incidents, another one others; and gold, which shows them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::tape::Tape;
use wardroom_testing::wire::{TimeSeries, series};
use wardroom_testing::{Server, now_ms, server, wire};

/// A service whose latency wanders a lot, so that trouble is less far from what is usual.
struct Restless {
    totals: BTreeMap<u32, f64>,
    step: u32,
}

impl Restless {
    fn next(&mut self, at_ms: i64, trouble: bool) -> Vec<TimeSeries> {
        self.step += 1;
        // 0.5 to 0.9 s and back, within forty seconds.
        let tenths = if trouble { 14 } else { 5 + (self.step / 5 % 8).min(8 - self.step / 5 % 8) };
        for bound in 1..=30_u32 {
            *self.totals.entry(bound).or_default() += if bound >= tenths { 40.0 } else { 0.0 };
        }
        let most = self.totals[&30];
        let bounds = self.totals.iter().map(|(bound, total)| (format!("{:.1}", f64::from(*bound) / 10.0), *total));
        bounds
            .chain([("+Inf".to_owned(), most)])
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

fn replayed(data: &Path, config: Option<&Path>) -> Value {
    let out = tempfile::tempdir().unwrap();
    let folder = |path: &Path| path.display().to_string();
    let mut words = vec!["replay".to_owned(), "--data".into(), folder(data), "--from".into(), "30m".into()];
    words.extend(["--json".into(), "--out".into(), folder(out.path())]);
    words.extend(config.into_iter().flat_map(|config| ["--config".to_owned(), folder(config)]));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (code, text) = server::run(&words).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(out.path().join("lake/gold/incidents/_delta_log").is_dir(), "tables of its own");
    serde_json::from_str(&text).unwrap()
}

fn keys(incidents: &Value, name: &str) -> Vec<String> {
    let mut keys: Vec<_> = incidents.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().into()).collect();
    keys.sort_unstable();
    keys
}

fn gold(server: &Server, table: &str, rows: usize) -> Value {
    let started = Instant::now();
    loop {
        let query = format!("SELECT * FROM gold.{table} ORDER BY ts");
        let (status, answer) = server.json("/api/v1/sql", &server.responder, &json!({ "query": query })).unwrap();
        if status == 200 && answer.as_array().unwrap().len() >= rows {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{table}: {status} {answer:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_was_found_is_found_again_and_gold_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let environment = [("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__GOLD_SECONDS", "1")];
    let mut server = Server::start(dir.path(), "", &environment).unwrap();
    // Long enough for a window of service health, and in the past, so that all of it may come at once.
    let mut tape = Tape::new(now_ms() - 900_000, &["cart", "newsletter"]);
    let mut restless = Restless { totals: BTreeMap::new(), step: 0 };
    for second in 0..880 {
        let trouble: &[&str] = if (700..730).contains(&second) { &["cart"] } else { &[] };
        let mut body = tape.next(trouble);
        body.extend(restless.next(tape.at_ms, (400..430).contains(&second)));
        assert_eq!(server.write(&wire::body(body)).unwrap(), 204);
    }
    let deployment = json!({ "timestamp": wardroom_domain::Timestamp::from_millis(tape.at_ms), "service": "cart",
        "version": "2", "status": "success" });
    assert_eq!(server.json("/ingest/deployment", &server.sender, &deployment).unwrap().0, 200);

    let incidents = gold(&server, "incidents", 2);
    let happened = keys(&incidents, "incident");
    assert_eq!(incidents[0]["service"], "restless", "{incidents:#}");
    let health = gold(&server, "service_health", 4);
    let calm = health.as_array().unwrap().iter().find(|row| row["service"] == "newsletter").unwrap();
    assert!((39.0..41.0).contains(&calm["requests_per_second"].as_f64().unwrap()), "{calm}");
    assert!(calm["latency_p99_seconds"].as_f64().unwrap() < 0.1 && calm["breaches"] == 0, "{calm}");

    // Beside the running server.
    let again = replayed(&data, None);
    assert_eq!(keys(&again["incidents"], "key"), happened, "{again:#}");
    assert_eq!(again["missing"], json!([]));
    assert_eq!(again["incidents"][0]["id"], "INC-1");
    assert_eq!(again["samples"], 880 * (2 * 6 + 31));
    let blunt = dir.path().join("blunt.yaml");
    std::fs::write(&blunt, "detect:\n  z-warning: 6\n  z-high: 7\n  z-critical: 8\n").unwrap();
    let fewer = replayed(&data, Some(&blunt));
    assert_eq!(fewer["incidents"].as_array().unwrap().len(), 1, "{fewer:#}");
    assert_eq!(fewer["missing"][0]["id"], "INC-1");
    assert!(fewer["anomalies"].as_u64() < again["anomalies"].as_u64());

    // Gold is an outcome and no source: without it nothing is missing, and it comes back.
    assert_eq!(server.stop().unwrap(), Some(0));
    std::fs::remove_dir_all(data.join("lake/gold")).unwrap();
    assert_eq!(keys(&replayed(&data, None)["incidents"], "key"), happened);
    server.restart().unwrap();
    assert_eq!(keys(&gold(&server, "incidents", 2), "incident"), happened);

    // What the bus has forgotten is in the tables.
    server.stop().unwrap();
    for entry in std::fs::read_dir(data.join("bus")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "seg") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let stored = replayed(&data, None);
    assert_eq!(keys(&stored["incidents"], "key"), happened, "{stored:#}");
    assert_eq!(stored["samples"], 880 * (2 * 6 + 31));
}
