//! The last backup, told by whoever made it to the server, which sees no other folder: so that its age is a metric.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;

use crate::metrics as names;

fn path(data: &Path) -> PathBuf {
    data.join("state/backup.json")
}

/// Notes that a backup was made: as of when, and how large it is.
///
/// # Errors
/// The disk's.
pub fn note(data: &Path, taken_at: Timestamp, bytes: u64) -> std::io::Result<()> {
    let fresh = path(data).with_extension("new");
    std::fs::write(&fresh, json!({ "taken_at_ms": taken_at.millis(), "bytes": bytes }).to_string())?;
    std::fs::rename(fresh, path(data))
}

/// Puts it into the metrics.
pub(crate) fn show(data: &Path) {
    let last = std::fs::read(path(data)).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let Some(last) = last else { return };
    metrics::gauge!(names::BACKUP_SECONDS).set(last["taken_at_ms"].as_f64().unwrap_or_default() / 1000.0);
    metrics::gauge!(names::BACKUP_BYTES).set(last["bytes"].as_f64().unwrap_or_default());
}
