//! Copies and lists files.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::backup_error::BackupError;
use super::manifest::FileEntry;

/// Buffer of a file copy.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// Progress of a backup or a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyProgress<'a> {
    /// The file that is copied next, by its relative path.
    File(&'a str),
    /// Bytes copied since the last report.
    Bytes(u64),
    /// The copy was discarded and starts again with the first file.
    Restarted,
}

/// Copies a file to a new path, and returns its size and checksum. `on_copied` gets the bytes of each chunk.
pub(super) fn copy_file(from: &Path, to: &Path, mut on_copied: impl FnMut(u64)) -> Result<FileEntry, BackupError> {
    let operation = || format!("copy {} to {}", from.display(), to.display());
    let mut source = File::open(from).map_err(BackupError::io(operation))?;
    create_private_parent(to).map_err(BackupError::io(operation))?;
    let target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.map_err(BackupError::io(operation))?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; COPY_BUFFER_BYTES]);
    loop {
        let count = source.read(&mut buffer).map_err(BackupError::io(operation))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        target.write_all(&buffer[..count]).map_err(BackupError::io(operation))?;
        bytes += count as u64;
        on_copied(count as u64);
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileEntry { bytes, sha256 })
}

/// Creates the parent folders of a file, accessible to their owner only.
pub(super) fn create_private_parent(file: &Path) -> std::io::Result<()> {
    let parent = file.parent().unwrap_or(file);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
}

/// Lists the files below a folder, recursively, with their relative paths; none if the folder does not exist.
pub(super) fn list_files(folder: &Path) -> Result<Vec<(PathBuf, String)>, BackupError> {
    fn walk(folder: &Path, below: &str, found: &mut Vec<(PathBuf, String)>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            match entry.file_type()? {
                kind if kind.is_dir() => walk(&entry.path(), &format!("{name}/"), found)?,
                kind if kind.is_file() => found.push((entry.path(), name)),
                _ => {}
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    if folder.is_dir() {
        walk(folder, "", &mut found).map_err(BackupError::io(|| format!("list {}", folder.display())))?;
    }
    found.sort();
    Ok(found)
}
