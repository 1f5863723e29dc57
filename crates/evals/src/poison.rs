//! Bar 2b: a record that panics its handler is tried five times, lies in the dead letters with its reason, holds
//! nobody up for longer than a second, and lands once when it is replayed.
//!
//! Needs the build with the feature `mutants`: only there is a log line that detection panics on.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::server::create_token;
use wardroom_testing::{Server, now_ms};

use crate::{Options, Tally, tell};

const POISON: &str = "wardroom: a poisoned line";
const ODD: &str = "wardroom: a line for no table";
const ODD_VALUE: f64 = 6.66e-300;

pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-2b-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mutant = options.mutant.clone().unwrap_or_else(|| "poison".to_owned());
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", &mutant)])?;
    let viewer = create_token(&dir.join("data"), "eve", "viewer")?;
    let mut tally = Tally { issued: 3, ..Tally::default() };
    for message in ["before", POISON, "after"] {
        let line = json!({ "level": "ERROR", "message": message, "service": "a" });
        ensure!(server.json("/ingest/logs", &server.sender, &line)?.0 == 200, "{message:?} was not taken");
        tally.acked += 1;
    }
    let started = Instant::now();
    while lag(&server)? > 0 {
        if started.elapsed() > Duration::from_secs(15) {
            tally.faults.push("detection does not go on behind the poisoned record".to_owned());
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let moved_on = now_ms();
    let letters = letters(&server, &viewer)?;
    let Some(letter) = letters.first().filter(|_| letters.len() == 1) else {
        tally.missing += 1;
        tally.faults.push(format!("{} dead letters instead of one", letters.len()));
        return Ok(tally);
    };
    let moment = |field: &str| Timestamp::parse(letter[field].as_str().unwrap_or_default()).map_err(anyhow::Error::msg);
    let (first, last) = (moment("first_try")?, moment("last_try")?);
    let waited = moved_on - last.millis();
    let (tries, reason) = (&letter["tries"], letter["reason"].as_str().unwrap_or_default());
    tell(format!(
        "{tries} tries within {} ms, {reason:?}, moved on {waited} ms after the last",
        last.millis() - first.millis()
    ));
    if *tries != 5 || !reason.contains("poison") || waited > 1000 {
        tally.faults.push(format!("{letter}"));
    }
    // A mended build: the record is not tried again by itself, and lands once however often it is asked.
    server.kill();
    server.set_environment("WARDROOM_MUTANT", "");
    server.restart()?;
    let id = letter["id"].as_u64().context("no id")?;
    let mut landed = Vec::new();
    for _ in 0..3 {
        let path = format!("/api/v1/dead-letters/{id}/replay");
        let (status, answer) = server.json(&path, &server.responder, &json!({}))?;
        ensure!(status == 200, "{answer}");
        landed.push(answer["offset"].clone());
    }
    landed.dedup();
    let after = self::letters(&server, &viewer)?;
    if landed.len() != 1 || after.len() != 1 || after[0]["replayed_as"] != landed[0] {
        tally.duplicate += landed.len() as u64 - 1;
        tally.faults.push(format!("replayed three times: {landed:?}, {after:?}"));
    }
    drop(server);
    tally.add(odd(&dir.join("line"), options, "lake-events", &lines(ODD))?);
    tally.add(odd(&dir.join("sample"), options, "lake", &samples())?);
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// A request of the kind that a table gets, and how to count what it has of it.
struct Kind {
    path: &'static str,
    body: Value,
    count: String,
}

/// Log lines, the middle one of which no row can be made.
fn lines(odd: &str) -> [Kind; 3] {
    ["ahead", odd, "behind"].map(|message| Kind {
        path: "/ingest/logs",
        body: json!({ "level": "ERROR", "message": message, "service": "a" }),
        count: format!("SELECT count(*) AS found FROM logs WHERE message = '{message}'"),
    })
}

/// Samples of one series, the middle one of which no file can be made.
fn samples() -> [Kind; 3] {
    let start_ms = now_ms() - 60_000;
    [(0, 1.5), (1, ODD_VALUE), (2, 2.5)].map(|(step, value)| {
        let at = Timestamp::from_millis(start_ms + step * 15_000).to_string();
        Kind {
            path: "/ingest/metrics",
            body: json!({ "timestamp": at, "metric_name": "depth", "value": value, "service": "a" }),
            count: format!("SELECT count(*) AS found FROM metrics WHERE metric_name = 'depth' AND value = {value:e}"),
        }
    })
}

/// The same for a record of which no row can be made: the tables go on without it, and it lands once when it is replayed.
fn odd(dir: &std::path::Path, options: &Options, group: &str, kinds: &[Kind; 3]) -> anyhow::Result<Tally> {
    std::fs::create_dir_all(dir)?;
    let mutant = options.mutant.as_deref().unwrap_or("poison");
    let environment = [("WARDROOM_MUTANT", mutant), ("WARDROOM_LAKE__FLUSH_SECONDS", "1")];
    let mut server = Server::start(dir, "", &environment)?;
    let viewer = create_token(&dir.join("data"), "eve", "viewer")?;
    let mut tally = Tally { issued: 3, ..Tally::default() };
    for Kind { path, body, .. } in kinds {
        ensure!(server.json(path, &server.sender, body)?.0 == 200, "{body} was not taken");
        tally.acked += 1;
    }
    crate::silver::settle(&server)?;
    let letters = letters(&server, &viewer)?;
    let letter = letters.first().context("no dead letter")?;
    if letters.len() != 1 || letter["group"] != group || letter["tries"] != 5 {
        tally.faults.push(format!("{letters:?}"));
    }
    let counts = |server: &Server| -> anyhow::Result<Vec<u64>> {
        kinds.iter().map(|kind| counted(server, &kind.count)).collect()
    };
    let before = counts(&server)?;
    server.kill();
    server.set_environment("WARDROOM_MUTANT", "");
    server.restart()?;
    for _ in 0..3 {
        let path = format!("/api/v1/dead-letters/{}/replay", letter["id"]);
        let (status, answer) = server.json(&path, &server.responder, &json!({}))?;
        ensure!(status == 200, "{answer}");
    }
    crate::silver::settle(&server)?;
    let after = counts(&server)?;
    tell(format!(
        "group {group}: in the tables around a record of which no row can be made: {before:?}, and {after:?} when it is mended"
    ));
    if before != [1, 0, 1] || after != [1, 1, 1] {
        tally.faults.push(format!("{group}: rows in the tables: {before:?}, then {after:?}"));
    }
    Ok(tally)
}

/// How many rows a query counts.
fn counted(server: &Server, query: &str) -> anyhow::Result<u64> {
    let (status, answer) = server.json("/api/v1/sql", &server.responder, &json!({ "query": query }))?;
    ensure!(status == 200, "{answer}");
    answer[0]["found"].as_u64().with_context(|| answer.to_string())
}

fn letters(server: &Server, viewer: &str) -> anyhow::Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (status, text) = server.get("/api/v1/dead-letters", viewer)?;
        // The token is in force within a second.
        if status == 200 || Instant::now() > deadline {
            let answer: Value = serde_json::from_str(&text)?;
            return Ok(answer["dead_letters"].as_array().cloned().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn lag(server: &Server) -> anyhow::Result<u64> {
    let (_, text) = server.get("/readyz", "")?;
    let ready: Value = serde_json::from_str(&text)?;
    ready["detect_lag_records"].as_u64().context("/readyz does not name the lag")
}
