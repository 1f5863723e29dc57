//! The manifest of a backup. It is written last: a folder without it is not a complete backup.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wardroom_domain::Timestamp;

/// File name of the manifest.
const MANIFEST_FILE: &str = "manifest.json";
/// Format version that this build writes.
const FORMAT_VERSION: u32 = 1;
/// Buffer of a file copy.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// The contents of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Format version.
    pub(crate) version: u32,
    /// Version of Wardroom that made the backup.
    pub(crate) wardroom: String,
    /// When the backup was started.
    pub(crate) taken_at: Timestamp,
    /// URI of the tables if they are on an object store and therefore not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lake_elsewhere: Option<String>,
    /// Files by relative path.
    pub(crate) files: BTreeMap<String, FileEntry>,
}

/// Size and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// SHA-256, in hex.
    pub(crate) sha256: String,
}

impl Manifest {
    /// Returns a manifest without files.
    pub(crate) fn new(taken_at: Timestamp) -> Self {
        let wardroom = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: FORMAT_VERSION, wardroom, taken_at, lake_elsewhere: None, files: BTreeMap::new() }
    }

    /// Reads the manifest of a backup.
    pub(crate) fn read(backup: &Path) -> anyhow::Result<Self> {
        let path = backup.join(MANIFEST_FILE);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let document: serde_json::Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if let Some(version) = document["version"].as_u64().filter(|version| *version > u64::from(FORMAT_VERSION)) {
            bail!(
                "{}: format version {version} is newer than {FORMAT_VERSION}; use a newer version of Wardroom",
                path.display()
            );
        }
        let manifest: Self = serde_json::from_value(document).with_context(|| path.display().to_string())?;
        for name in manifest.files.keys() {
            // A path such as ../x would be restored outside the data folder.
            let relative = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            ensure!(relative, "{}: {name:?} is not a relative path inside the backup", path.display());
        }
        Ok(manifest)
    }

    /// Writes the manifest and syncs it to disk.
    pub(crate) fn write(&self, backup: &Path) -> anyhow::Result<()> {
        let mut file = File::create(backup.join(MANIFEST_FILE))?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        Ok(file.sync_all()?)
    }

    /// Total size of the files, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

/// Lists the complete backups in a folder, oldest first.
pub(crate) fn list_backups(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && path.join(MANIFEST_FILE).is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a file to a new path, and returns its size and checksum. `on_copied` gets the bytes of each chunk.
pub(crate) fn copy_file(from: &Path, to: &Path, mut on_copied: impl FnMut(u64)) -> anyhow::Result<FileEntry> {
    let context = || format!("copy {} to {}", from.display(), to.display());
    let mut source = File::open(from).with_context(context)?;
    create_private_parent(to).with_context(context)?;
    use std::os::unix::fs::OpenOptionsExt;
    let target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.with_context(context)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; COPY_BUFFER_BYTES]);
    loop {
        let count = source.read(&mut buffer).with_context(context)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        target.write_all(&buffer[..count]).with_context(context)?;
        bytes += count as u64;
        on_copied(count as u64);
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileEntry { bytes, sha256 })
}

/// Creates the parent folders of a file, accessible to their owner only.
pub(crate) fn create_private_parent(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let parent = file.parent().unwrap_or(file);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
}
