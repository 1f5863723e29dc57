//! Bar 2b: a record that panics its handler is tried five times, dead-lettered with its reason, delays others by at
//! most a second, and is applied once when it is replayed.
//!
//! Needs a binary with the feature `mutants`: only there do detection and the lake panic on certain records.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::server::create_token;
use wardroom_testing::{Server, now_ms};

use crate::bar::{BarOptions, BarResult};
use crate::oracle::lake_contents::wait_for_lake;
use crate::progress::print_progress;

/// Log message that panics detection.
const POISON_MESSAGE: &str = "wardroom: a poisoned line";
/// Log message that panics the event writer.
const UNWRITABLE_MESSAGE: &str = "wardroom: a line for no table";
/// Sample value that panics the sample writer.
const UNWRITABLE_VALUE: f64 = 6.66e-300;

/// Detection must continue after the poison record within this time.
const DETECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum delay from the last attempt until detection has continued.
const MAX_DELAY_MS: i64 = 1000;
/// A new token must be valid within this time.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("2b")?;
    let mutant = options.mutant.clone().unwrap_or_else(|| "poison".to_owned());
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", &mutant)])?;
    let viewer = create_token(&dir.join("data"), "eve", "viewer")?;
    let mut result = BarResult { issued: 3, ..BarResult::default() };
    for message in ["before", POISON_MESSAGE, "after"] {
        let line = json!({ "level": "ERROR", "message": message, "service": "a" });
        ensure!(server.post_json("/ingest/logs", &server.sender_token, &line)?.0 == 200, "{message:?} was refused");
        result.acked += 1;
    }
    let started = Instant::now();
    while detect_lag(&server)? > 0 {
        if started.elapsed() > DETECT_TIMEOUT {
            result.faults.push("detection does not continue after the poison record".to_owned());
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let continued_ms = now_ms();
    let dead_letters = list_dead_letters(&server, &viewer)?;
    let Some(dead_letter) = dead_letters.first().filter(|_| dead_letters.len() == 1) else {
        result.missing += 1;
        result.faults.push(format!("{} dead letters instead of one", dead_letters.len()));
        return Ok(result);
    };
    let time =
        |field: &str| Timestamp::parse(dead_letter[field].as_str().unwrap_or_default()).map_err(anyhow::Error::msg);
    let (first, last) = (time("first_try")?, time("last_try")?);
    let delay_ms = continued_ms - last.millis();
    let (tries, reason) = (&dead_letter["tries"], dead_letter["reason"].as_str().unwrap_or_default());
    print_progress(format!(
        "{tries} tries within {} ms, {reason:?}, continued {delay_ms} ms after the last",
        last.millis() - first.millis()
    ));
    if *tries != 5 || !reason.contains("poison") || delay_ms > MAX_DELAY_MS {
        result.faults.push(format!("dead letter: {dead_letter}"));
    }
    // A fixed build: the record is not retried automatically, and repeated replays apply it once.
    server.kill();
    server.set_environment("WARDROOM_MUTANT", "");
    server.restart()?;
    let id = dead_letter["id"].as_u64().context("no id")?;
    let mut offsets = Vec::new();
    for _ in 0..3 {
        let path = format!("/api/v1/dead-letters/{id}/replay");
        let (status, response) = server.post_json(&path, &server.responder_token, &json!({}))?;
        ensure!(status == 200, "{response}");
        offsets.push(response["offset"].clone());
    }
    offsets.dedup();
    let after = list_dead_letters(&server, &viewer)?;
    if offsets.len() != 1 || after.len() != 1 || after[0]["replayed_as"] != offsets[0] {
        result.duplicate += offsets.len() as u64 - 1;
        result.faults.push(format!("replayed three times: offsets {offsets:?}, dead letters {after:?}"));
    }
    drop(server);
    result.add(check_lake(&dir.join("logs"), options, "lake-events", &log_requests())?);
    result.add(check_lake(&dir.join("samples"), options, "lake", &sample_requests())?);
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// A request, and the query that counts its rows in the lake.
struct LakeRequest {
    path: &'static str,
    body: Value,
    count_query: String,
}

/// Returns log records, of which the second cannot be written to the lake.
fn log_requests() -> [LakeRequest; 3] {
    ["before", UNWRITABLE_MESSAGE, "after"].map(|message| LakeRequest {
        path: "/ingest/logs",
        body: json!({ "level": "ERROR", "message": message, "service": "a" }),
        count_query: format!("SELECT count(*) AS found FROM logs WHERE message = '{message}'"),
    })
}

/// Returns samples of one series, of which the second cannot be written to the lake.
fn sample_requests() -> [LakeRequest; 3] {
    let start_ms = now_ms() - 60_000;
    [(0, 1.5), (1, UNWRITABLE_VALUE), (2, 2.5)].map(|(step, value)| {
        let at = Timestamp::from_millis(start_ms + step * 15_000).to_string();
        LakeRequest {
            path: "/ingest/metrics",
            body: json!({ "timestamp": at, "metric_name": "depth", "value": value, "service": "a" }),
            count_query: format!(
                "SELECT count(*) AS found FROM metrics WHERE metric_name = 'depth' AND value = {value:e}"
            ),
        }
    })
}

/// Checks a record that cannot be written to the lake: the lake continues without it, and it is written once when it
/// is replayed.
fn check_lake(
    dir: &std::path::Path,
    options: &BarOptions,
    group: &str,
    requests: &[LakeRequest; 3],
) -> anyhow::Result<BarResult> {
    std::fs::create_dir_all(dir)?;
    let mutant = options.mutant.as_deref().unwrap_or("poison");
    let environment = [("WARDROOM_MUTANT", mutant), ("WARDROOM_LAKE__FLUSH_SECONDS", "1")];
    let mut server = Server::start(dir, "", &environment)?;
    let viewer = create_token(&dir.join("data"), "eve", "viewer")?;
    let mut result = BarResult { issued: 3, ..BarResult::default() };
    for LakeRequest { path, body, .. } in requests {
        ensure!(server.post_json(path, &server.sender_token, body)?.0 == 200, "{body} was refused");
        result.acked += 1;
    }
    wait_for_lake(&server)?;
    let dead_letters = list_dead_letters(&server, &viewer)?;
    let dead_letter = dead_letters.first().context("no dead letter")?;
    if dead_letters.len() != 1 || dead_letter["group"] != group || dead_letter["tries"] != 5 {
        result.faults.push(format!("dead letters: {dead_letters:?}"));
    }
    let counts = |server: &Server| -> anyhow::Result<Vec<u64>> {
        requests.iter().map(|request| count_rows(server, &request.count_query)).collect()
    };
    let before = counts(&server)?;
    server.kill();
    server.set_environment("WARDROOM_MUTANT", "");
    server.restart()?;
    for _ in 0..3 {
        let path = format!("/api/v1/dead-letters/{}/replay", dead_letter["id"]);
        let (status, response) = server.post_json(&path, &server.responder_token, &json!({}))?;
        ensure!(status == 200, "{response}");
    }
    wait_for_lake(&server)?;
    let after = counts(&server)?;
    print_progress(format!(
        "group {group}: rows before, of and after the poison record: {before:?}; after its replay: {after:?}"
    ));
    if before != [1, 0, 1] || after != [1, 1, 1] {
        result.faults.push(format!("{group}: rows in the lake: {before:?}, after replay {after:?}"));
    }
    Ok(result)
}

/// Runs a counting query.
fn count_rows(server: &Server, query: &str) -> anyhow::Result<u64> {
    let (status, response) = server.post_json("/api/v1/sql", &server.responder_token, &json!({ "query": query }))?;
    ensure!(status == 200, "{response}");
    response[0]["found"].as_u64().with_context(|| response.to_string())
}

/// Lists the dead letters, retrying until the new token is valid.
fn list_dead_letters(server: &Server, viewer: &str) -> anyhow::Result<Vec<Value>> {
    let deadline = Instant::now() + TOKEN_TIMEOUT;
    loop {
        let (status, text) = server.get("/api/v1/dead-letters", viewer)?;
        if status == 200 || Instant::now() > deadline {
            let response: Value = serde_json::from_str(&text)?;
            return Ok(response["dead_letters"].as_array().cloned().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn detect_lag(server: &Server) -> anyhow::Result<u64> {
    let (_, text) = server.get("/readyz", "")?;
    let ready: Value = serde_json::from_str(&text)?;
    ready["detect_lag_records"].as_u64().context("/readyz has no detect_lag_records")
}
