//! The tables that a run of the benchmark leaves, as a reader from outside finds them.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use wardroom_testing::server;

use crate::silver::python;

/// Everything is in the tables this soon after it was sent.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// Waits until a reader from outside counts every sample; what it finds.
pub(super) fn counted(data: &Path, sent: u64) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        let output = python().args(["-c", include_str!("tables.py")]).arg(data.join("lake")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let mut found: Value = serde_json::from_slice(&output.stdout)?;
        if found["rows"] == sent {
            let number = |name: &str| found[name].as_f64().unwrap_or_default();
            let (each, finished) = (number("bytes") / sent as f64, number("finished_rows"));
            let finished = (finished > 0.0).then(|| number("finished_bytes") / finished);
            // The bus with its bodies, bronze, silver, the journals and what the store holds.
            let total = size(data)? as f64 / sent as f64;
            let a_day = |each: f64| json!(each * 50_000.0 * DAY_S / 1e9);
            found["bytes_per_sample"] = json!(each);
            found["finished_bytes_per_sample"] = json!(finished);
            found["gb_a_day_at_50k"] = a_day(each);
            found["total_bytes_per_sample"] = json!(total);
            found["total_gb_a_day_at_50k"] = a_day(total);
            return Ok(found);
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "{} of {sent} samples are in the table after {PATIENCE:?}",
            found["rows"]
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until no file of samples is to be merged any more.
pub(super) fn merged(data: &Path) -> anyhow::Result<()> {
    let (started, folder) = (Instant::now(), data.display().to_string());
    loop {
        let (code, text) = server::run(&["lake", "maintain", "--dry-run", "--json", "--data", &folder])?;
        ensure!(code == Some(0), "the tables cannot be looked at");
        let due: Value = serde_json::from_str(&text)?;
        let due = due["chores"].as_array().is_some_and(|chores| chores.iter().any(|chore| chore["what"] == "merge"));
        if !due {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "short files are not merged after {PATIENCE:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Bytes of all files below a folder; one that goes meanwhile has none.
pub(super) fn size(folder: &Path) -> std::io::Result<u64> {
    let gone = |error: std::io::Error| if error.kind() == ErrorKind::NotFound { Ok(0) } else { Err(error) };
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let found = if kind.is_dir() { size(&path) } else { std::fs::metadata(&path).map(|meta| meta.len()) };
        bytes += found.or_else(gone)?;
    }
    Ok(bytes)
}
