//! Epochs: a log continues at a higher offset than the one after its last record.
//!
//! Problem: checkpoints and tables record offsets. If the log is shorter than they say (deleted, restored, cut off
//! after damage), new records would get offsets that count as processed. Model: a new epoch is an empty segment at an
//! offset that nothing has recorded yet, and a marker file, so that the missing offsets do not count as damage.

use std::path::Path;

use crate::error::Error;
use crate::writer::create_segment;
use crate::{consumer_groups, epoch_markers, request_archive, segment};

/// Continues a log that no process has open at `offset`. Durable on return; repeating it changes nothing.
///
/// # Errors
/// Returns an error if a file cannot be created.
pub fn start_new_epoch(dir: &Path, offset: u64) -> Result<(), Error> {
    epoch_markers::create(dir, offset).map_err(|error| Error::disk("start a new epoch", &error))?;
    create_segment(dir, offset).map(drop)
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
