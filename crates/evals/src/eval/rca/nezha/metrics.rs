//! The metrics of Nezha's pods.

use std::path::Path;

use anyhow::Context as _;
use wardroom_domain::SignalKind;
use wardroom_signals::SignalUnit;

use super::super::telemetry::{RcaCase, Recording, fact, signal};
use super::pod::service_of;

/// (Column, kind, resource, unit, factor to the unit). Percentages are of the container's limit.
const COLUMNS: [(&str, SignalKind, &str, SignalUnit, f64); 2] = [
    ("CpuUsageRate(%)", SignalKind::Saturation, "cpu", SignalUnit::Ratio, 0.01),
    ("MemoryUsageRate(%)", SignalKind::Saturation, "memory", SignalUnit::Ratio, 0.01),
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
