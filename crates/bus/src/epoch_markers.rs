//! Marker files: where the epochs of a log begin. See `epoch`.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Folder of the markers, below the bus folder.
const EPOCHS_FOLDER: &str = "epochs";
/// File extension of a marker; its name is the first offset of the epoch.
const MARKER_EXTENSION: &str = "epoch";

/// Records that an epoch begins at `offset`. Durable on return; repeating it changes nothing.
pub(crate) fn create(dir: &Path, offset: u64) -> std::io::Result<()> {
    let folder = dir.join(EPOCHS_FOLDER);
    std::fs::create_dir_all(&folder)?;
    File::create(folder.join(format!("{offset:020}.{MARKER_EXTENSION}")))?.sync_all()?;
    File::open(&folder)?.sync_all()
}

/// Returns the first offset of each epoch but the first, ascending.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
    let folder = dir.join(EPOCHS_FOLDER);
    let mut offsets = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let path = PathBuf::from(entry?.file_name());
            let is_marker = path.extension().is_some_and(|extension| extension == MARKER_EXTENSION);
            let stem = path.file_stem().filter(|_| is_marker).and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            offsets.extend(stem);
        }
    }
    offsets.sort_unstable();
    Ok(offsets)
}
