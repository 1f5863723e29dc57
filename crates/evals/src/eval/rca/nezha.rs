//! Nezha: metrics of each pod every minute, spans and log lines of three minutes a case and of one minute without a
//! fault a day.

mod metrics;
mod pod;
mod traces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wardroom_diagnose::Facts;
use wardroom_domain::Timestamp;

use self::traces::Recorded;
use super::telemetry::{RcaCase, read_lines};

/// Telemetry after the start of the fault that diagnosis may see, in seconds.
const SEEN_SECONDS: i64 = 180;

/// Reads all cases.
pub(super) fn cases(data: &Path, lines: &[serde_json::Value]) -> anyhow::Result<Vec<RcaCase>> {
    let labels: BTreeMap<String, String> = read_lines(&data.join("labels.jsonl"))?
        .into_iter()
        .filter_map(|line| Some((line["case"].as_str()?.to_owned(), line["service"].as_str()?.to_owned())))
        .collect();
    let days = normal_days(data)?;
    lines.iter().map(|line| case(data, line, &days, &labels)).collect()
}

fn case(
    data: &Path,
    line: &serde_json::Value,
    days: &BTreeMap<String, Recorded>,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<RcaCase> {
    let (id, day) = (line["case"].as_str().context("case")?, line["day"].as_str().context("day")?);
    let began_s = line["inject_time"].as_i64().context("inject_time")?;
    let began_ms = began_s * 1000;
    let files = |kind: &str, list: &str| {
        let minutes = line[list].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |minute: &serde_json::Value| Some(format!("{}_{kind}.csv", minute.as_str()?));
        minutes.iter().filter_map(name).map(|name| data.join(day).join(kind).join(name)).collect::<Vec<PathBuf>>()
    };
    let mut recorded = Recorded::default();
    // The recording of the same day without a fault; where it has no spans, that of the day after or before.
    let month = day.get(..7).unwrap_or(day);
    for (name, normal) in days.iter().filter(|(name, normal)| name.starts_with(month) && !normal.is_empty()) {
        if name == day || days.get(day).is_none_or(Recorded::is_empty) {
            recorded.add_all_as_before(normal);
        }
    }
    recorded.read(&files("trace", "traces"), &files("log", "logs"), began_ms)?;
    let mut case = RcaCase {
        id: id.to_owned(),
        system: line["system"].as_str().unwrap_or_default().to_owned(),
        facts: Facts {
            began_at: Timestamp::from_millis(began_ms),
            now: Timestamp::from_millis(began_ms + SEEN_SECONDS * 1000),
            ..Facts::default()
        },
        truth: labels.get(id).cloned().into_iter().collect(),
        spelling: BTreeMap::new(),
    };
    metrics::add(&data.join(day).join("metric"), (began_s, began_s + SEEN_SECONDS), &mut case)?;
    recorded.add_to(&mut case);
    metrics::add_paths(&data.join(day).join("metric"), (began_s, began_s + SEEN_SECONDS), &mut case)?;
    Ok(case)
}

/// Reads the minutes without a fault, by day.
fn normal_days(data: &Path) -> anyhow::Result<BTreeMap<String, Recorded>> {
    let mut days = BTreeMap::new();
    for entry in std::fs::read_dir(data.join("normal"))? {
        let entry = entry?;
        let (mut traces, mut logs) = (Vec::new(), Vec::new());
        for (folder, files) in [("trace", &mut traces), ("log", &mut logs)] {
            let Ok(found) = std::fs::read_dir(entry.path().join(folder)) else { continue };
            for file in found {
                files.push(file?.path());
            }
            files.sort();
        }
        let mut recorded = Recorded::default();
        recorded.read(&traces, &logs, i64::MAX)?;
        days.insert(entry.file_name().to_string_lossy().into_owned(), recorded);
    }
    Ok(days)
}
