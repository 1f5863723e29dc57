//! The manifest of a backup. It is written last: a folder without it is not a complete backup.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_domain::Timestamp;

use super::backup_error::BackupError;

/// File name of the manifest.
const MANIFEST_FILE: &str = "manifest.json";
/// Format version that this build writes.
const FORMAT_VERSION: u32 = 1;

/// The contents of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// Version of Wardroom that made the backup.
    pub wardroom: String,
    /// When the backup was started.
    pub taken_at: Timestamp,
    /// URI of the tables if they are on an object store and therefore not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake_elsewhere: Option<String>,
    /// Files by relative path.
    pub files: BTreeMap<String, FileEntry>,
}

/// Size and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

impl Manifest {
    /// Returns a manifest without files.
    pub(super) fn new(taken_at: Timestamp) -> Self {
        let wardroom = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: FORMAT_VERSION, wardroom, taken_at, lake_elsewhere: None, files: BTreeMap::new() }
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// Returns an error if the manifest cannot be read, is damaged, or is of a newer format.
    pub fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(MANIFEST_FILE);
        let invalid = |detail: String| BackupError::InvalidManifest { path: path.clone(), detail };
        let text = std::fs::read_to_string(&path).map_err(BackupError::io(|| path.display().to_string()))?;
        let document: serde_json::Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if let Some(version) = document["version"].as_u64().filter(|version| *version > u64::from(FORMAT_VERSION)) {
            let newest = FORMAT_VERSION;
            return Err(invalid(format!(
                "format version {version} is newer than {newest}; use a newer version of Wardroom"
            )));
        }
        let manifest: Self = serde_json::from_value(document).map_err(|error| invalid(error.to_string()))?;
        for name in manifest.files.keys() {
            // A path such as ../x would be restored outside the data folder.
            let relative = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !relative {
                return Err(invalid(format!("{name:?} is not a relative path inside the backup")));
            }
        }
        Ok(manifest)
    }

    /// Writes the manifest and syncs it to disk.
    pub(super) fn write(&self, backup: &Path) -> Result<(), BackupError> {
        let path = backup.join(MANIFEST_FILE);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()
        };
        write().map_err(BackupError::io(|| format!("write {}", path.display())))
    }

    /// Total size of the files, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

/// Lists the complete backups in a folder, oldest first.
pub(super) fn list_backups(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let list_error = || format!("list {}", folder.display());
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).map_err(BackupError::io(list_error))? {
            let path = entry.map_err(BackupError::io(list_error))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && path.join(MANIFEST_FILE).is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
