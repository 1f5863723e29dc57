//! Epochs: a log continues at a higher offset than the one after its last record.
//!
//! Problem: checkpoints and tables record offsets. If the log is shorter than they say (deleted, restored, cut off
//! after damage), new records would get offsets that count as processed. Model: a new epoch is an empty segment at an
//! offset that nothing has recorded yet, and a marker file, so that the missing offsets do not count as damage.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::consumer_groups;
use crate::error::Error;
use crate::writer::create_segment;
use crate::{request_archive, segment};

/// Folder of the markers, below the bus folder.
const EPOCHS_FOLDER: &str = "epochs";
/// File extension of a marker; its name is the first offset of the epoch.
const MARKER_EXTENSION: &str = "epoch";

/// Continues a log that no process has open at `offset`. Durable on return; repeating it changes nothing.
///
/// # Errors
/// Returns an error if a file cannot be created.
pub fn start_new_epoch(dir: &Path, offset: u64) -> Result<(), Error> {
    let disk_error = |error: std::io::Error| Error::disk("start a new epoch", &error);
    let folder = dir.join(EPOCHS_FOLDER);
    std::fs::create_dir_all(&folder).map_err(disk_error)?;
    let marker = folder.join(format!("{offset:020}.{MARKER_EXTENSION}"));
    File::create(marker).and_then(|file| file.sync_all()).map_err(disk_error)?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(disk_error)?;
    create_segment(dir, offset).map(drop)
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

/// Returns what the folder of a log records about offsets outside its segments: committed offsets of consumer groups,
/// and the archive. A log that ends before one of them has lost records.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub fn recorded_offsets(dir: &Path) -> Result<Vec<(String, u64)>, Error> {
    let disk_error = |error: std::io::Error| Error::disk("read", &error);
    let groups = consumer_groups::all_committed(dir).map_err(disk_error)?;
    let groups = groups.into_iter().map(|(group, offset)| (format!("consumer group {group}"), offset));
    let archive = request_archive::newest_segment(dir).map_err(disk_error)?;
    Ok(groups.chain(archive.map(|offset| ("the request archive".to_owned(), offset))).collect())
}

/// Whether the folder of a log has records, as far as the sizes of its segments tell.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn has_records(dir: &Path) -> Result<bool, Error> {
    if !dir.is_dir() {
        return Ok(false);
    }
    let disk_error = |error: std::io::Error| Error::disk("read", &error);
    let segments = segment::list(dir).map_err(disk_error)?;
    let has_bytes = |base: &u64| std::fs::metadata(segment::path(dir, *base)).is_ok_and(|file| file.len() > 0);
    Ok(segments.iter().any(has_bytes))
}
