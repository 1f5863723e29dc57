//! The metrics of Nezha's pods.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use wardroom_domain::{Entity, SignalId, SignalKind};
use wardroom_signals::SignalUnit;

use super::super::telemetry::{RcaCase, Recording, calls, fact, signal};
use super::pod::service_of;

/// (Column, kind, resource, unit, factor to the unit). Percentages are of the container's limit.
const COLUMNS: [(&str, SignalKind, &str, SignalUnit, f64); 3] = [
    ("CpuUsageRate(%)", SignalKind::Saturation, "cpu", SignalUnit::Ratio, 0.01),
    ("MemoryUsageRate(%)", SignalKind::Saturation, "memory", SignalUnit::Ratio, 0.01),
    ("PodWorkload(Ops)", SignalKind::Traffic, "", SignalUnit::PerSecond, 1.0),
];

/// Adds the metrics of all pods of a day, compared with the day before `from_s` (seconds).
pub(super) fn add(folder: &Path, (from_s, to_s): (i64, i64), case: &mut RcaCase) -> anyhow::Result<()> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.to_string_lossy().ends_with("_metric.csv"));
    paths.sort();
    for path in paths {
        let mut reader = csv::Reader::from_path(&path)?;
        let names = reader.headers()?.clone();
        let column = |name: &str| names.iter().position(|found| found == name);
        let (Some(time), Some(pod)) = (column("TimeStamp"), column("PodName")) else { continue };
        let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
        let Some(entity) = rows.first().map(|row| service_of(&row[pod])) else { continue };
        for (name, kind, resource, unit, factor) in COLUMNS {
            let Some(index) = column(name) else { continue };
            let points: Vec<(i64, f64)> = rows
                .iter()
                .filter_map(|row| Some((row[time].parse().ok()?, row[index].parse::<f64>().ok()? * factor)))
                .collect();
            let before = points.iter().filter(|(at, _)| *at < from_s).map(|(_, value)| *value).collect();
            let since = points.iter().filter(|(at, _)| (from_s..=to_s).contains(at));
            let since = since.map(|(at, value)| (at * 1000, *value)).collect();
            let signal = signal(&entity, kind, resource, name);
            case.spelling.insert(signal.labels().to_string(), format!("|{name}"));
            case.facts.signals.extend(fact(&Recording { signal, unit, before, since }, from_s * 1000));
        }
    }
    Ok(())
}

/// Files with the median duration of the calls between two services, in seconds: at the caller and at the callee.
const CALLER_FILE: &str = "source_50.csv";
const CALLEE_FILE: &str = "destination_50.csv";
/// Rows of the two files belong together if their times differ by at most this, in seconds.
const SAME_SECONDS: i64 = 5;

/// Durations of calls by (caller, callee): (time in seconds, seconds).
type CallDurations = BTreeMap<(String, String), Vec<(i64, f64)>>;

/// Adds the time that calls take on the way between two services, where spans did not tell it, and which calls which.
pub(super) fn add_paths(folder: &Path, (from_s, to_s): (i64, i64), case: &mut RcaCase) -> anyhow::Result<()> {
    let (callers, callees) = (folder.join(CALLER_FILE), folder.join(CALLEE_FILE));
    if !callers.exists() || !callees.exists() {
        return Ok(());
    }
    let (callers, callees) = (read_calls(&callers)?, read_calls(&callees)?);
    for ((from, to), durations) in &callers {
        let (from, to) = (Entity::service(from), Entity::service(to));
        let relation = calls(&from, &to);
        if !case.facts.relations.contains(&relation) {
            case.facts.relations.push(relation);
        }
        let is_known = case.facts.signals.iter().any(|fact| {
            let signal = &fact.signal;
            signal.kind == SignalKind::Latency && signal.entity == from && signal.peer.as_ref() == Some(&to)
        });
        let Some(at_callee) = callees.get(&(from.name.clone(), to.name.clone())).filter(|_| !is_known) else {
            continue;
        };
        let path = |(at, seconds): &(i64, f64)| {
            let same = at_callee.iter().find(|(other, _)| (other - at).abs() <= SAME_SECONDS)?;
            Some((*at, (seconds - same.1).max(0.0)))
        };
        let points: Vec<(i64, f64)> = durations.iter().filter_map(path).collect();
        let before = points.iter().filter(|(at, _)| *at < from_s).map(|(_, seconds)| *seconds).collect();
        let since = points.iter().filter(|(at, _)| (from_s..=to_s).contains(at));
        let since = since.map(|(at, seconds)| (at * 1000, *seconds)).collect();
        let metric = format!("network latency from {} to {}", from.name, to.name);
        let signal = SignalId { peer: Some(to), ..signal(&from, SignalKind::Latency, "", &metric) };
        case.spelling.insert(signal.labels().to_string(), format!("|{metric}"));
        case.facts.signals.extend(fact(&Recording { signal, unit: SignalUnit::Seconds, before, since }, from_s * 1000));
    }
    Ok(())
}

/// Reads a file whose columns after the time are named `caller_callee`.
fn read_calls(path: &Path) -> anyhow::Result<CallDurations> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("reading {}", path.display()))?;
    let names = reader.headers()?.clone();
    let time = names.iter().position(|name| name == "timestamp").context("a column timestamp")?;
    let mut durations = CallDurations::new();
    for row in reader.records() {
        let row = row?;
        let Ok(at) = row[time].parse::<i64>() else { continue };
        for (name, text) in names.iter().zip(row.iter()) {
            let (Some((from, to)), Ok(seconds)) = (name.split_once('_'), text.parse::<f64>()) else { continue };
            durations.entry((from.to_owned(), to.to_owned())).or_default().push((at, seconds));
        }
    }
    Ok(durations)
}
