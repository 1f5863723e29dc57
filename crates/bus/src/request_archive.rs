//! The request archive: selected requests of dropped segments.
//!
//! Problem: samples are stored losslessly in the tables, so their requests are needed only until the next restart; the
//! tables hold only the parsed form of log lines and spans, so their requests are worth keeping longer. Both are in the
//! same segments. Model: before a segment is dropped, the frames to keep are copied unchanged to a file of the same
//! name in the archive folder, which has a retention of its own. Consumers never read from the archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wardroom_domain::{Envelope, Timestamp};

use crate::record::{self, Record};
use crate::segment::{self, Frame};

/// Folder of the archive, below the bus folder.
const ARCHIVE_FOLDER: &str = "rest";
/// File extension of the archive files.
const ARCHIVE_EXTENSION: &str = "rest";

/// Returns the path of the archive file of a segment.
fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(ARCHIVE_FOLDER).join(format!("{segment:020}.{ARCHIVE_EXTENSION}"))
}

/// Returns the base offset of the newest segment in the archive.
pub(crate) fn newest_segment(dir: &Path) -> std::io::Result<Option<u64>> {
    let folder = dir.join(ARCHIVE_FOLDER);
    let mut newest = None;
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let path = PathBuf::from(entry?.file_name());
            let is_archive = path.extension().is_some_and(|extension| extension == ARCHIVE_EXTENSION);
            let base = path.file_stem().filter(|_| is_archive).and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            newest = newest.max(base);
        }
    }
    Ok(newest)
}

/// Copies the records of a segment that `keep` selects to the archive. Durable on return.
pub(crate) fn archive_segment(dir: &Path, segment: u64, keep: &dyn Fn(&Envelope) -> bool) -> std::io::Result<()> {
    std::fs::create_dir_all(dir.join(ARCHIVE_FOLDER))?;
    let temporary = path(dir, segment).with_extension("new");
    let copied = copy_records(dir, segment, &temporary, keep);
    if copied.inspect_err(|_| drop(std::fs::remove_file(&temporary)))? == 0 {
        return std::fs::remove_file(temporary);
    }
    std::fs::rename(&temporary, path(dir, segment))?;
    File::open(dir.join(ARCHIVE_FOLDER))?.sync_all()
}

/// Copies the selected records to a new file and returns their number.
fn copy_records(dir: &Path, segment: u64, to: &Path, keep: &dyn Fn(&Envelope) -> bool) -> std::io::Result<u64> {
    let mut file = File::open(segment::path(dir, segment))?;
    let mut out = BufWriter::new(File::create(to)?);
    let (mut position, mut copied, mut frame) = (0, 0_u64, Vec::new());
    loop {
        match segment::read_frame(&mut file, position)? {
            Frame::Valid { offset, payload, next } => {
                let span = (position, next - position);
                position = next;
                // For dropped records the frame's checksum is sufficient.
                let decoded = record::decode(segment, span, offset, &payload, &|envelope| !keep(envelope));
                if decoded.is_ok_and(|record| keep(&record.envelope)) {
                    frame.clear();
                    segment::append_frame(&mut frame, offset, &payload, &[]);
                    out.write_all(&frame)?;
                    copied += 1;
                }
            }
            // Reported when the log was read.
            Frame::Damaged { next } => position = next,
            Frame::Torn | Frame::End => break,
        }
    }
    let out = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    out.set_modified(file.metadata()?.modified()?)?;
    out.sync_all()?;
    Ok(copied)
}

/// Deletes archive files last modified before `before`, and the oldest ones beyond `limit_bytes` in total.
pub(crate) fn trim(dir: &Path, before: Timestamp, limit_bytes: u64) -> std::io::Result<()> {
    let mut total_bytes = 0;
    for (path, modified, bytes) in list(dir)?.into_iter().rev() {
        total_bytes += bytes;
        let modified_ms = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis());
        if i64::try_from(modified_ms).unwrap_or(i64::MAX) < before.millis() || total_bytes > limit_bytes {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Returns the record with this offset if it is in the archive.
pub(crate) fn find(dir: &Path, offset: u64) -> std::io::Result<Option<Record>> {
    let segments: Vec<u64> = list(dir)?
        .iter()
        .filter_map(|(path, ..)| path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()))
        .collect();
    let Some(segment) = segments.into_iter().rfind(|segment| *segment <= offset) else { return Ok(None) };
    let (mut file, mut position) = (File::open(path(dir, segment))?, 0);
    loop {
        match segment::read_frame(&mut file, position)? {
            Frame::Valid { offset: found, payload, next } if found == offset => {
                return Ok(record::decode(segment, (position, next - position), offset, &payload, &|_| false).ok());
            }
            Frame::Valid { next, .. } | Frame::Damaged { next } => position = next,
            Frame::Torn | Frame::End => return Ok(None),
        }
    }
}

/// Lists path, modification time and size of the archive files, oldest first.
fn list(dir: &Path) -> std::io::Result<Vec<(PathBuf, SystemTime, u64)>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(dir.join(ARCHIVE_FOLDER)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if path.extension().is_some_and(|extension| extension == ARCHIVE_EXTENSION) {
            files.push((path, meta.modified()?, meta.len()));
        }
    }
    files.sort();
    Ok(files)
}
