//! Bar 1a: 39 requests that a remote_write receiver must accept or refuse. Each is read back bit for bit through the
//! API and from the bus. A receiver that acknowledges and stores nothing fails every case.
//!
//! The cases (`fixtures/receiver/`) were generated with Google's protobuf library; their groups are described there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};
use wardroom_testing::{Server, now_ms, remote_write, server};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

const CASES: &str = include_str!("../../../fixtures/receiver/cases.json");
/// What was acknowledged must be readable within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Case {
    name: String,
    headers: BTreeMap<String, String>,
    body: String,
    status: u16,
    /// Samples, histograms and exemplars that the response headers must report.
    written: Option<[u64; 3]>,
    read: ExpectedData,
}

/// Names and values of labels.
type Pairs = BTreeMap<String, String>;

#[derive(Deserialize)]
struct ExpectedData {
    /// Labels, timestamp in ms, bits of the value.
    samples: Vec<(Pairs, i64, String)>,
    /// Labels, timestamp in ms, histogram as the API returns it.
    histograms: Vec<(Pairs, i64, Value)>,
    /// Labels, labels of the exemplar, value, timestamp in ms.
    exemplars: Vec<(Pairs, Pairs, f64, i64)>,
    /// Metric family, type, help, unit.
    metadata: Vec<(String, String, String, String)>,
}

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("1a")?;
    // The timestamps of the fixtures are constant.
    let environment = [
        ("WARDROOM_MUTANT", options.mutant_name()),
        ("WARDROOM_SOURCES__MAX_AGE_HOURS", "1000000"),
        ("WARDROOM_SOURCES__MAX_AHEAD_MINUTES", "100000000"),
    ];
    let mut server = Server::start(&dir, "", &environment)?;
    let cases: Vec<Case> = serde_json::from_str(CASES)?;
    let mut failed: BTreeMap<&str, String> = BTreeMap::new();
    for case in &cases {
        if let Err(error) = send_case(&server, case).and_then(|()| read_back(&server, case)) {
            failed.insert(&case.name, format!("{error:#}"));
        }
    }
    server.kill();
    let on_disk = dump_by_case(&dir)?;
    for case in &cases {
        if let Err(error) = compare_series(case, on_disk.get(&case.name).map_or(&[], Vec::as_slice)) {
            failed.entry(&case.name).or_insert_with(|| format!("on disk: {error:#}"));
        }
    }
    std::fs::remove_dir_all(&dir)?;
    print_progress(format!("{} of {} cases passed", cases.len() - failed.len(), cases.len()));
    // A mutant must fail every case.
    let survived = options.mutant.is_some() && failed.len() < cases.len();
    Ok(BarResult {
        issued: cases.len() as u64,
        acked: (cases.len() - failed.len()) as u64,
        faults: if survived { Vec::new() } else { failed.iter().map(|(name, why)| format!("{name}: {why}")).collect() },
        ..BarResult::default()
    })
}

/// Sends a request and compares the response.
fn send_case(server: &Server, case: &Case) -> anyhow::Result<()> {
    let body = base64::engine::general_purpose::STANDARD.decode(&case.body)?;
    let mut request = ureq::post(format!("{}/api/v1/write", server.url))
        .config()
        .http_status_as_error(false)
        .build()
        .header("Authorization", format!("Bearer {}", server.sender_token));
    for (name, value) in &case.headers {
        request = request.header(name, value);
    }
    let mut response = request.send(&body[..])?;
    let text = response.body_mut().read_to_string()?;
    ensure!(response.status().as_u16() == case.status, "{} instead of {}: {text}", response.status(), case.status);
    let written = ["samples", "histograms", "exemplars"].map(|name| {
        let header = response.headers().get(format!("x-prometheus-remote-write-{name}-written"))?;
        header.to_str().ok()?.parse().ok()
    });
    let expected = case.written.map_or([None; 3], |written| written.map(Some));
    ensure!(written == expected, "written {written:?} instead of {expected:?}");
    // A second series, which must be stored in every case.
    let labels = [("__name__", "control"), ("case", case.name.as_str())];
    let status = server.write(&remote_write::body(vec![remote_write::series(&labels, 0.5, now_ms())]))?;
    ensure!(status == 204, "the control series got status {status}");
    Ok(())
}

/// Waits until the API returns everything that the case expects.
fn read_back(server: &Server, case: &Case) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match check_api(server, case) {
            Err(error) if started.elapsed() > READ_TIMEOUT => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
            Ok(()) => return Ok(()),
        }
    }
}

fn check_api(server: &Server, case: &Case) -> anyhow::Result<()> {
    let selector = format!("%7Bcase%3D%22{}%22%7D", case.name);
    let page = get_json(server, &format!("/api/v1/samples?match[]={selector}&start=0"))?;
    compare_series(case, page["series"].as_array().context("no series")?)?;
    if !case.read.exemplars.is_empty() {
        let page = get_json(server, &format!("/api/v1/query_exemplars?query={selector}&start=0"))?;
        for (labels, exemplar_labels, value, ts_ms) in &case.read.exemplars {
            let all = page["data"].as_array().into_iter().flatten();
            let series = all.filter(|series| series["seriesLabels"] == json!(labels));
            let expected = json!({ "labels": exemplar_labels, "value": value, "timestamp": *ts_ms as f64 / 1000.0 });
            let matches = |found: &&Value| {
                found["labels"] == expected["labels"]
                    && found["timestamp"] == expected["timestamp"]
                    && found["value"].as_str().and_then(|text| text.parse().ok()) == Some(*value)
            };
            let mut exemplars = series.flat_map(|series| series["exemplars"].as_array()).flatten();
            ensure!(exemplars.any(|found| matches(&found)), "exemplar {expected} is missing in {page}");
        }
    }
    for (family, kind, help, unit) in &case.read.metadata {
        let page = get_json(server, &format!("/api/v1/metadata?metric={family}"))?;
        let expected = json!([{ "type": kind, "help": help, "unit": unit }]);
        ensure!(page["data"][family] == expected, "metadata {} instead of {expected}", page["data"][family]);
    }
    Ok(())
}

fn get_json(server: &Server, path: &str) -> anyhow::Result<Value> {
    let (status, text) = server.get(path, &server.responder_token)?;
    ensure!(status == 200, "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

/// Compares all samples and histograms with the label of the case.
fn compare_series(case: &Case, series: &[Value]) -> anyhow::Result<()> {
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    for entry in series.iter().filter(|entry| entry["labels"]["__name__"] != "control") {
        for sample in entry["samples"].as_array().into_iter().flatten() {
            samples.push(json!([entry["labels"], sample[0], sample[2]]).to_string());
        }
        for histogram in entry["histograms"].as_array().into_iter().flatten() {
            let mut normalized = histogram.clone();
            let ts_ms = normalized.as_object_mut().and_then(|fields| fields.remove("ts_ms")).context("no ts_ms")?;
            histograms.push(json!([entry["labels"], ts_ms, sorted(normalized)]).to_string());
        }
    }
    ensure!(series.iter().any(|entry| entry["labels"]["__name__"] == "control"), "the control series is missing");
    let mut expected: Vec<_> =
        case.read.samples.iter().map(|(l, ts_ms, bits)| json!([l, ts_ms, bits]).to_string()).collect();
    compare_lists("samples", &mut samples, &mut expected)?;
    let expected = case.read.histograms.iter();
    let mut expected: Vec<_> =
        expected.map(|(l, ts_ms, normalized)| json!([l, ts_ms, sorted(normalized.clone())]).to_string()).collect();
    compare_lists("histograms", &mut histograms, &mut expected)
}

/// Sorts the fields of objects by name.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().collect();
            fields.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        other => other,
    }
}

fn compare_lists(kind: &str, found: &mut [String], expected: &mut [String]) -> anyhow::Result<()> {
    found.sort();
    expected.sort();
    ensure!(found == expected, "{kind}: {found:?} instead of {expected:?}");
    Ok(())
}

/// Dumps samples and histograms of the stopped server; returns the series of each case as the API would.
fn dump_by_case(dir: &std::path::Path) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let data = dir.join("data").display().to_string();
    let selector = "{case=~\".+\"}";
    let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", selector, "--format", "json"])?;
    ensure!(code == Some(0), "samples dump failed");
    let mut series: BTreeMap<String, Value> = BTreeMap::new();
    for line in dump.lines() {
        let line: Value = serde_json::from_str(line)?;
        let entry = series.entry(line["labels"].to_string()).or_insert_with(|| json!({ "labels": line["labels"] }));
        let (list, item) = match line.get("histogram") {
            Some(histogram) => ("histograms", histogram.clone()),
            None => ("samples", json!([line["ts_ms"], line["value"], line["bits"]])),
        };
        if entry.get(list).is_none() {
            entry[list] = json!([]);
        }
        entry[list].as_array_mut().context("no list")?.push(item);
    }
    let mut cases: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for series in series.into_values() {
        cases.entry(series["labels"]["case"].as_str().unwrap_or_default().to_owned()).or_default().push(series);
    }
    Ok(cases)
}
