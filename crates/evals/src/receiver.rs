//! Bar 1a: 39 requests that a remote_write receiver must understand or refuse, each read back bit for bit through the
//! raw endpoints and from the log itself. A receiver that says yes and keeps nothing fails every one.
//!
//! The cases (`fixtures/receiver/`) were made by Google's protobuf library; see there for the groups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};
use wardroom_testing::{Server, now_ms, server, wire};

use crate::{Options, Tally, tell};

const CASES: &str = include_str!("../fixtures/receiver/cases.json");
/// What was acknowledged is read back this soon.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Case {
    name: String,
    headers: BTreeMap<String, String>,
    body: String,
    status: u16,
    /// Samples, histograms and exemplars, as the answer's headers say.
    written: Option<[u64; 3]>,
    read: Read,
}

/// Names and values.
type Pairs = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Read {
    /// Labels, ms, bits.
    samples: Vec<(Pairs, i64, String)>,
    histograms: Vec<(Pairs, i64, Value)>,
    /// Labels, the exemplar's labels, value, ms.
    exemplars: Vec<(Pairs, Pairs, f64, i64)>,
    /// Family, kind, help, unit.
    metadata: Vec<(String, String, String, String)>,
}

/// Runs the bar.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-1a-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    // The fixtures' time stands still.
    let environment = [
        ("WARDROOM_MUTANT", options.mutant.as_deref().unwrap_or_default()),
        ("WARDROOM_SOURCES__MAX_AGE_HOURS", "1000000"),
        ("WARDROOM_SOURCES__MAX_AHEAD_MINUTES", "100000000"),
    ];
    let mut server = Server::start(&dir, "", &environment)?;
    let cases: Vec<Case> = serde_json::from_str(CASES)?;
    let mut failed: BTreeMap<&str, String> = BTreeMap::new();
    for case in &cases {
        if let Err(error) = answered(&server, case).and_then(|()| read_back(&server, case)) {
            failed.insert(&case.name, format!("{error:#}"));
        }
    }
    server.kill();
    for case in &cases {
        if let Err(error) = kept(&dir, case) {
            failed.entry(&case.name).or_insert_with(|| format!("on disk: {error:#}"));
        }
    }
    std::fs::remove_dir_all(&dir)?;
    tell(format!("{} of {} cases as they must be", cases.len() - failed.len(), cases.len()));
    // One case that a fault on purpose gets past is a hole.
    let hole = options.mutant.is_some() && failed.len() < cases.len();
    Ok(Tally {
        issued: cases.len() as u64,
        acked: (cases.len() - failed.len()) as u64,
        faults: if hole { Vec::new() } else { failed.iter().map(|(name, why)| format!("{name}: {why}")).collect() },
        ..Tally::default()
    })
}

/// Sends a case and compares the answer.
fn answered(server: &Server, case: &Case) -> anyhow::Result<()> {
    let body = base64::engine::general_purpose::STANDARD.decode(&case.body)?;
    let mut request = ureq::post(format!("{}/api/v1/write", server.url))
        .config()
        .http_status_as_error(false)
        .build()
        .header("Authorization", format!("Bearer {}", server.sender));
    for (name, value) in &case.headers {
        request = request.header(name, value);
    }
    let mut answer = request.send(&body[..])?;
    let text = answer.body_mut().read_to_string()?;
    ensure!(answer.status().as_u16() == case.status, "{} instead of {}: {text}", answer.status(), case.status);
    let written = ["samples", "histograms", "exemplars"].map(|name| {
        let header = answer.headers().get(format!("x-prometheus-remote-write-{name}-written"))?;
        header.to_str().ok()?.parse().ok()
    });
    let expected = case.written.map_or([None; 3], |written| written.map(Some));
    ensure!(written == expected, "written {written:?} instead of {expected:?}");
    // Whatever a case is about, a receiver that keeps nothing must not pass.
    let labels = [("__name__", "bystander"), ("case", case.name.as_str())];
    let status = server.write(&wire::body(vec![wire::series(&labels, 0.5, now_ms())]))?;
    ensure!(status == 204, "the witness got {status}");
    Ok(())
}

/// Finds everything through the API.
fn read_back(server: &Server, case: &Case) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match found(server, case) {
            Err(error) if started.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
            Ok(()) => return Ok(()),
        }
    }
}

fn found(server: &Server, case: &Case) -> anyhow::Result<()> {
    let selector = format!("%7Bcase%3D%22{}%22%7D", case.name);
    let page = ask(server, &format!("/api/v1/samples?match[]={selector}&start=0"))?;
    compare(case, page["series"].as_array().context("no series")?)?;
    if !case.read.exemplars.is_empty() {
        let page = ask(server, &format!("/api/v1/query_exemplars?query={selector}&start=0"))?;
        for (labels, own, value, ts_ms) in &case.read.exemplars {
            let all = page["data"].as_array().into_iter().flatten();
            let series = all.filter(|series| series["seriesLabels"] == json!(labels));
            let expected = json!({ "labels": own, "value": value, "timestamp": *ts_ms as f64 / 1000.0 });
            let same = |found: &&Value| {
                found["labels"] == expected["labels"]
                    && found["timestamp"] == expected["timestamp"]
                    && found["value"].as_str().and_then(|text| text.parse().ok()) == Some(*value)
            };
            let mut exemplars = series.flat_map(|series| series["exemplars"].as_array()).flatten();
            ensure!(exemplars.any(|found| same(&found)), "exemplar {expected} is not in {page}");
        }
    }
    for (family, kind, help, unit) in &case.read.metadata {
        let page = ask(server, &format!("/api/v1/metadata?metric={family}"))?;
        let expected = json!([{ "type": kind, "help": help, "unit": unit }]);
        ensure!(page["data"][family] == expected, "metadata {} instead of {expected}", page["data"][family]);
    }
    Ok(())
}

fn ask(server: &Server, path: &str) -> anyhow::Result<Value> {
    let (status, text) = server.get(path, &server.responder)?;
    ensure!(status == 200, "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

/// Samples and histograms of a case, and nothing else under its label.
fn compare(case: &Case, series: &[Value]) -> anyhow::Result<()> {
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    for one in series.iter().filter(|one| one["labels"]["__name__"] != "bystander") {
        for sample in one["samples"].as_array().into_iter().flatten() {
            samples.push(json!([one["labels"], sample[0], sample[2]]).to_string());
        }
        for histogram in one["histograms"].as_array().into_iter().flatten() {
            let mut shown = histogram.clone();
            let ts_ms = shown.as_object_mut().and_then(|fields| fields.remove("ts_ms")).context("no ts_ms")?;
            histograms.push(json!([one["labels"], ts_ms, sorted(shown)]).to_string());
        }
    }
    ensure!(series.iter().any(|one| one["labels"]["__name__"] == "bystander"), "the witness is missing");
    let mut expected: Vec<_> = case.read.samples.iter().map(|(l, at, bits)| json!([l, at, bits]).to_string()).collect();
    same("samples", &mut samples, &mut expected)?;
    let expected = case.read.histograms.iter();
    let mut expected: Vec<_> =
        expected.map(|(l, at, shown)| json!([l, at, sorted(shown.clone())]).to_string()).collect();
    same("histograms", &mut histograms, &mut expected)
}

/// Fields in the order of their names.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().collect();
            fields.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        other => other,
    }
}

fn same(what: &str, found: &mut [String], expected: &mut [String]) -> anyhow::Result<()> {
    found.sort();
    expected.sort();
    ensure!(found == expected, "{what}: {found:?} instead of {expected:?}");
    Ok(())
}

/// Finds samples and histograms in the log of a server that is gone.
fn kept(dir: &std::path::Path, case: &Case) -> anyhow::Result<()> {
    let data = dir.join("data").display().to_string();
    let selector = format!("{{case=\"{}\"}}", case.name);
    let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", &selector, "--format", "json"])?;
    ensure!(code == Some(0), "samples dump failed");
    let mut series: BTreeMap<String, Value> = BTreeMap::new();
    for line in dump.lines() {
        let line: Value = serde_json::from_str(line)?;
        let one = series.entry(line["labels"].to_string()).or_insert_with(|| json!({ "labels": line["labels"] }));
        let (list, item) = match line.get("histogram") {
            Some(histogram) => ("histograms", histogram.clone()),
            None => ("samples", json!([line["ts_ms"], line["value"], line["bits"]])),
        };
        if one.get(list).is_none() {
            one[list] = json!([]);
        }
        one[list].as_array_mut().context("no list")?.push(item);
    }
    compare(case, &series.into_values().collect::<Vec<_>>())
}
