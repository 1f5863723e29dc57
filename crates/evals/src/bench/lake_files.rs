//! Size and rows of the lake's samples, read by DuckDB and deltalake.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use wardroom_testing::server;

use crate::client_python::python;

/// Due merges, and with a short flush interval all samples, must be in the tables within this time.
const LAKE_TIMEOUT: Duration = Duration::from_secs(120);
const SECONDS_PER_DAY: f64 = 86_400.0;

/// Returns rows and bytes of the samples' table. With `wait_for_rows`, waits until it holds all `sent` samples.
pub(super) fn count_files(data: &Path, sent: u64, wait_for_rows: bool) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        let output = python().args(["-c", include_str!("lake_files.py")]).arg(data.join("lake")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let mut found: Value = serde_json::from_slice(&output.stdout)?;
        if wait_for_rows && found["rows"] != sent {
            ensure!(
                started.elapsed() < LAKE_TIMEOUT,
                "{} of {sent} samples are in the table after {LAKE_TIMEOUT:?}",
                found["rows"]
            );
            std::thread::sleep(Duration::from_millis(500));
            continue;
        }
        let number = |name: &str| found[name].as_f64().unwrap_or_default();
        let per_row = |bytes: &str, rows: &str| (number(rows) > 0.0).then(|| number(bytes) / number(rows));
        let (bytes, finished) = (per_row("bytes", "rows"), per_row("finished_bytes", "finished_rows"));
        // The whole data folder: the bus with its bodies, all tables, journals, database.
        let total = folder_bytes(data)? as f64 / sent as f64;
        let gb_per_day = |bytes: f64| bytes * 50_000.0 * SECONDS_PER_DAY / 1e9;
        found["bytes_per_sample"] = json!(bytes);
        found["finished_bytes_per_sample"] = json!(finished);
        found["gb_a_day_at_50k"] = json!(bytes.map(gb_per_day));
        found["total_bytes_per_sample"] = json!(total);
        found["total_gb_a_day_at_50k"] = json!(gb_per_day(total));
        return Ok(found);
    }
}

/// Waits until no merge is due.
pub(super) fn wait_for_merges(data: &Path) -> anyhow::Result<()> {
    let (started, folder) = (Instant::now(), data.display().to_string());
    loop {
        let (code, text) = server::run(&["lake", "maintain", "--dry-run", "--json", "--data", &folder])?;
        ensure!(code == Some(0), "lake maintain --dry-run failed");
        let plan: Value = serde_json::from_str(&text)?;
        let due = plan["chores"].as_array().is_some_and(|tasks| tasks.iter().any(|task| task["what"] == "merge"));
        if !due {
            return Ok(());
        }
        ensure!(started.elapsed() < LAKE_TIMEOUT, "merges are still due after {LAKE_TIMEOUT:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Returns the size of all files below a folder; files removed meanwhile count 0.
pub(super) fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let removed = |error: std::io::Error| if error.kind() == ErrorKind::NotFound { Ok(0) } else { Err(error) };
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let size = if kind.is_dir() { folder_bytes(&path) } else { std::fs::metadata(&path).map(|meta| meta.len()) };
        bytes += size.or_else(removed)?;
    }
    Ok(bytes)
}
