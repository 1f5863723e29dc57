//! Sock Shop: CPU, memory, load and latency of each service every second, without a call graph.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use wardroom_diagnose::Facts;
use wardroom_domain::{Entity, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

use super::telemetry::{RcaCase, Recording, fact, read_lines, signal};

/// Reads all cases.
pub(super) fn cases(data: &Path) -> anyhow::Result<Vec<RcaCase>> {
    let labels: BTreeMap<String, String> = read_lines(&data.join("labels.jsonl"))?
        .into_iter()
        .filter_map(|line| Some((line["case"].as_str()?.to_owned(), line["service"].as_str()?.to_owned())))
        .collect();
    let ids = read_lines(&data.join("cases.jsonl"))?;
    ids.iter().map(|line| case(data, line["case"].as_str().context("case")?, &labels)).collect()
}

fn case(data: &Path, id: &str, labels: &BTreeMap<String, String>) -> anyhow::Result<RcaCase> {
    let normal = read_table(&data.join(id).join("normal.csv"))?;
    let anomalous = read_table(&data.join(id).join("anomalous.csv"))?;
    let mut case = RcaCase {
        id: id.to_owned(),
        system: "sock-shop".into(),
        facts: Facts { now: Timestamp::from_millis(600_000), ..Facts::default() },
        truth: labels.get(id).cloned().into_iter().collect(),
        spelling: BTreeMap::new(),
    };
    for (column, values) in anomalous {
        let Some((service, measure)) = column.split_once('_') else { continue };
        let (kind, resource, unit) = match measure {
            "cpu" => (SignalKind::Saturation, "cpu", SignalUnit::Number),
            "mem" => (SignalKind::Saturation, "memory", SignalUnit::Bytes),
            "lod" => (SignalKind::Traffic, "", SignalUnit::PerSecond),
            _ => (SignalKind::Latency, "", SignalUnit::Seconds),
        };
        let signal = signal(&Entity::service(service), kind, resource, measure);
        // CPU is in per cent of a core.
        let scale = if measure == "cpu" { 0.01 } else { 1.0 };
        let before = normal.get(&column).into_iter().flatten().map(|value| value * scale).collect();
        // The recordings' clocks say nothing, so each begins at 0.
        let since = values.iter().enumerate().map(|(second, value)| (second as i64 * 1000, value * scale)).collect();
        case.spelling.insert(signal.labels().to_string(), column.clone());
        case.facts.signals.extend(fact(&Recording { signal, unit, before, since }, 0));
    }
    Ok(case)
}

fn read_table(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<f64>>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("reading {}", path.display()))?;
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut table: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in reader.records() {
        for (name, text) in names.iter().zip(row?.iter()).skip(1) {
            table.entry(name.clone()).or_default().extend(text.parse::<f64>().ok());
        }
    }
    Ok(table)
}
