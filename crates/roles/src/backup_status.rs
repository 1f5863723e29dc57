//! Status of the last backup. The supervisor's process writes it into the data folder, since the sandboxed server
//! cannot see the backup folder; the server shows it as metrics.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;

use crate::metrics as names;

fn path(data: &Path) -> PathBuf {
    data.join("state/backup.json")
}

/// Records a successful backup: the time of its data, and its size in bytes.
pub(crate) fn record(data: &Path, taken_at: Timestamp, bytes: u64) -> std::io::Result<()> {
    let new_path = path(data).with_extension("new");
    std::fs::write(&new_path, json!({ "taken_at_ms": taken_at.millis(), "bytes": bytes }).to_string())?;
    std::fs::rename(new_path, path(data))
}

/// Sets the gauges of the last backup, if there was one.
pub(crate) fn update_gauges(data: &Path) {
    let last = std::fs::read(path(data)).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let Some(last) = last else { return };
    metrics::gauge!(names::BACKUP_SECONDS).set(last["taken_at_ms"].as_f64().unwrap_or_default() / 1000.0);
    metrics::gauge!(names::BACKUP_BYTES).set(last["bytes"].as_f64().unwrap_or_default());
}
