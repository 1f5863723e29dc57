//! Status of the last backup. The supervisor's process writes it into the data folder, since the sandboxed server
//! cannot see the backup folder; the server shows it as metrics.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;

fn path(data: &Path) -> PathBuf {
    data.join("state/backup.json")
}

/// Records a successful backup: the time of its data, and its size in bytes.
pub(super) fn record(data: &Path, taken_at: Timestamp, bytes: u64) -> std::io::Result<()> {
    let new_path = path(data).with_extension("new");
    std::fs::write(&new_path, json!({ "taken_at_ms": taken_at.millis(), "bytes": bytes }).to_string())?;
    std::fs::rename(new_path, path(data))
}

/// The last successful backup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastBackup {
    /// Time of its data, in seconds since 1970.
    pub taken_at_s: f64,
    /// Its size.
    pub bytes: f64,
}

/// Returns the last successful backup of a data folder, or `None` if there was none.
pub fn last_backup(data: &Path) -> Option<LastBackup> {
    let last = std::fs::read(path(data)).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())?;
    let (taken_at_ms, bytes) = (last["taken_at_ms"].as_f64()?, last["bytes"].as_f64()?);
    Some(LastBackup { taken_at_s: taken_at_ms / 1000.0, bytes })
}
