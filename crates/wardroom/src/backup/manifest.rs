//! What a backup says of itself: written last, so that a folder without it is none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wardroom_domain::Timestamp;

/// Its file.
const NAME: &str = "manifest.json";
/// Format version that this build writes.
const VERSION: u32 = 1;

/// What a backup says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Format version.
    pub(super) version: u32,
    /// Which Wardroom made it.
    pub(super) wardroom: String,
    /// When it was begun.
    pub(super) taken_at: Timestamp,
    /// Where the tables are that are not in it: on an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lake_elsewhere: Option<String>,
    /// Its files by their names below it.
    pub(super) files: BTreeMap<String, Content>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// Its size.
    pub(super) bytes: u64,
    /// SHA-256, in hex.
    pub(super) sha256: String,
}

impl Manifest {
    /// One without files yet.
    pub(super) fn new(taken_at: Timestamp) -> Self {
        let wardroom = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: VERSION, wardroom, taken_at, lake_elsewhere: None, files: BTreeMap::new() }
    }

    /// Reads that of a backup.
    pub(super) fn read(backup: &Path) -> anyhow::Result<Self> {
        let path = backup.join(NAME);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let document: serde_json::Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if let Some(version) = document["version"].as_u64().filter(|version| *version > u64::from(VERSION)) {
            bail!("{}: format {version}; this build reads up to {VERSION}: use the newer Wardroom", path.display());
        }
        let manifest: Self = serde_json::from_value(document).with_context(|| path.display().to_string())?;
        for name in manifest.files.keys() {
            let plain = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            ensure!(plain, "{}: {name:?} is no name below it", path.display());
        }
        Ok(manifest)
    }

    /// Writes it, and waits until it is on the disk.
    pub(super) fn write(&self, backup: &Path) -> anyhow::Result<()> {
        let mut file = File::create(backup.join(NAME))?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        Ok(file.sync_all()?)
    }

    /// Size of all files together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.bytes).sum()
    }
}

/// The whole backups below a folder, oldest first.
pub(super) fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && path.join(NAME).is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a file to a place where there is none, and says what it holds.
pub(super) fn copy(from: &Path, to: &Path, mut each: impl FnMut(u64)) -> anyhow::Result<Content> {
    let failed = || format!("copy {} to {}", from.display(), to.display());
    let mut source = File::open(from).with_context(failed)?;
    private_parent(to).with_context(failed)?;
    use std::os::unix::fs::OpenOptionsExt;
    let target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.with_context(failed)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = source.read(&mut buffer).with_context(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        target.write_all(&buffer[..count]).with_context(failed)?;
        bytes += count as u64;
        each(count as u64);
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Content { bytes, sha256 })
}

/// Makes the folders of a file, for its owner alone.
pub(super) fn private_parent(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let parent = file.parent().unwrap_or(file);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
}
