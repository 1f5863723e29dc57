//! PetShop: call graph, and latency, availability and requests of each node every five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use wardroom_diagnose::Facts;
use wardroom_domain::{Entity, Relation, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

use super::telemetry::{RcaCase, Recording, calls, fact, signal};

/// A column: node, metric, statistic.
type Column = (String, String, String);
/// Points of every column: (seconds, value).
type Table = BTreeMap<Column, Vec<(i64, f64)>>;

/// Length of a row's window, in seconds.
const WINDOW_SECONDS: i64 = 300;

/// Returns whether the folder has this data set's layout.
pub(super) fn is_here(data: &Path) -> bool {
    scenarios(data).is_ok_and(|scenarios| !scenarios.is_empty())
}

/// Reads all cases.
pub(super) fn cases(data: &Path) -> anyhow::Result<Vec<RcaCase>> {
    let scenarios = scenarios(data)?;
    let without_fault = scenarios.iter().map(|name| data.join(name).join("noissue/metrics.csv"));
    let mut cases = Vec::new();
    for scenario in &scenarios {
        let own = data.join(scenario).join("noissue/metrics.csv");
        let past = std::iter::once(own).chain(without_fault.clone()).find(|path| path.exists());
        let past = read_table(&past.context("no scenario has noissue/metrics.csv")?)?;
        let graph = read_graph(&data.join(scenario).join("graph.csv"))?;
        for part in ["train", "test"] {
            for issue in folders(&data.join(scenario).join(part))? {
                let folder = data.join(scenario).join(part).join(&issue);
                cases.push(case(format!("{scenario}/{part}/{issue}"), &folder, &past, &graph)?);
            }
        }
    }
    Ok(cases)
}

fn scenarios(data: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = folders(data)?;
    found.retain(|name| data.join(name).join("graph.csv").exists());
    Ok(found)
}

fn folders(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn case(id: String, folder: &Path, past: &Table, graph: &[Relation]) -> anyhow::Result<RcaCase> {
    let text = std::fs::read_to_string(folder.join("target.json"))?;
    let target: serde_json::Value = serde_json::from_str(&text)?;
    let node = Entity::service(target["target"]["node"].as_str().context("target.node")?);
    let began_s = target["target"]["timestamp"].as_i64().context("target.timestamp")?;
    let from_ms = (began_s - WINDOW_SECONDS) * 1000;
    let near = reachable(&node, graph);
    let mut facts = Facts { began_at: Timestamp::from_millis(began_s * 1000), ..Facts::default() };
    for (column, points) in read_table(&folder.join("metrics.csv"))? {
        let entity = Entity::service(&column.0);
        let Some((kind, unit)) = meaning(&column).filter(|_| near.contains(&entity)) else { continue };
        let value = |value: f64| match kind {
            SignalKind::Errors => 1.0 - value / 100.0,
            SignalKind::Traffic => value / WINDOW_SECONDS as f64,
            _ => value,
        };
        let empty = Vec::new();
        let before =
            past.get(&column).unwrap_or(&empty).iter().chain(points.iter().filter(|(at, _)| at * 1000 < from_ms));
        let before = before.map(|(_, number)| value(*number)).collect();
        let since = points.iter().map(|(at, number)| (at * 1000, value(*number))).collect();
        let signal = signal(&entity, kind, "", &column.1);
        facts.signals.extend(fact(&Recording { signal, unit, before, since }, from_ms));
        facts.now = facts.now.max(Timestamp::from_millis(points.last().map_or(0, |(at, _)| at * 1000)));
    }
    facts.relations = graph.iter().filter(|relation| near.contains(&relation.from)).cloned().collect();
    let truth = target["root_cause"]["node"].as_str().map(str::to_owned).into_iter().collect();
    Ok(RcaCase { id, system: "pet-shop".into(), facts, truth, spelling: BTreeMap::new() })
}

/// Returns what a column measures; of the quantiles of latency none, since the mean says what the whole waits.
fn meaning((_, metric, statistic): &Column) -> Option<(SignalKind, SignalUnit)> {
    match (metric.as_str(), statistic.as_str()) {
        ("latency", "Average") => Some((SignalKind::Latency, SignalUnit::Seconds)),
        ("availability", "Average") => Some((SignalKind::Errors, SignalUnit::Ratio)),
        ("requests", "Sum") => Some((SignalKind::Traffic, SignalUnit::PerSecond)),
        _ => None,
    }
}

/// Returns the nodes that a fault can show from at this one.
fn reachable(node: &Entity, graph: &[Relation]) -> BTreeSet<Entity> {
    let mut found = BTreeSet::from([node.clone()]);
    loop {
        let before = found.len();
        let further: Vec<Entity> = graph
            .iter()
            .filter(|relation| found.contains(&relation.from))
            .map(|relation| relation.to.clone())
            .collect();
        found.extend(further);
        if found.len() == before {
            return found;
        }
    }
}

fn read_graph(path: &Path) -> anyhow::Result<Vec<Relation>> {
    let mut reader =
        csv::ReaderBuilder::new().from_path(path).with_context(|| format!("reading {}", path.display()))?;
    let names: Vec<String> = reader.headers()?.iter().skip(1).map(str::to_owned).collect();
    let mut relations = Vec::new();
    for row in reader.records() {
        let row = row?;
        let from = Entity::service(&row[0]);
        let edges =
            row.iter().skip(1).zip(&names).filter(|(weight, _)| weight.parse().is_ok_and(|weight: f64| weight > 0.0));
        relations.extend(edges.map(|(_, to)| calls(&from, &Entity::service(to))));
    }
    Ok(relations)
}

/// Reads a table with three header rows: node, metric, statistic.
fn read_table(path: &Path) -> anyhow::Result<Table> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_path(path)?;
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    let mut table = Table::new();
    let Some([nodes, metrics, statistics]) = rows.get(..3) else { anyhow::bail!("{}: no header", path.display()) };
    for row in &rows[3..] {
        let Some(at) = row.get(0).and_then(|text| text.parse::<f64>().ok()) else { continue };
        for index in 1..row.len().min(nodes.len()) {
            let Ok(value) = row[index].parse::<f64>() else { continue };
            let column = (nodes[index].to_owned(), metrics[index].to_owned(), statistics[index].to_owned());
            table.entry(column).or_default().push((at as i64, value));
        }
    }
    Ok(table)
}
