//! What is kept of a segment that is no longer needed: bodies that stand in no table as they came.
//!
//! Problem: samples are soon in the tables to the last bit, so keeping their requests longer than a restart needs is a waste; of a
//! log line or a span the tables have what was understood, and whoever doubts that wants the request. Both lie in the same segment.
//! Model: when a segment goes, the frames that are worth it are written to a file of its name under `rest`, unchanged, and that goes
//! later. The log itself knows nothing of it: nobody reads from there to go on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wardroom_domain::{Envelope, Timestamp};

use crate::segment::{self, Found};
use crate::{Record, record};

/// Below the folder of the bus.
const FOLDER: &str = "rest";

/// The file of what is left of a segment.
fn path(dir: &Path, base: u64) -> PathBuf {
    dir.join(FOLDER).join(format!("{base:020}.rest"))
}

/// Keeps the frames of a segment whose records are worth it; on the disk when this returns.
pub(crate) fn keep(dir: &Path, base: u64, worth: &dyn Fn(&Envelope) -> bool) -> std::io::Result<()> {
    std::fs::create_dir_all(dir.join(FOLDER))?;
    let fresh = path(dir, base).with_extension("new");
    if copy(dir, base, &fresh, worth).inspect_err(|_| drop(std::fs::remove_file(&fresh)))? == 0 {
        return std::fs::remove_file(fresh);
    }
    std::fs::rename(&fresh, path(dir, base))?;
    File::open(dir.join(FOLDER))?.sync_all()
}

/// Writes these frames to a new file; how many they were.
fn copy(dir: &Path, base: u64, to: &Path, worth: &dyn Fn(&Envelope) -> bool) -> std::io::Result<u64> {
    let mut segment = File::open(segment::path(dir, base))?;
    let mut out = BufWriter::new(File::create(to)?);
    let (mut position, mut kept, mut frame) = (0, 0_u64, Vec::new());
    loop {
        match segment::read_at(&mut segment, position)? {
            Found::Frame { offset, payload, next } => {
                let place = (position, next - position);
                position = next;
                // Of what goes, the frame's checksum is enough.
                let found = record::at(base, place, offset, &payload, &|envelope| !worth(envelope));
                if found.is_ok_and(|record| worth(&record.envelope)) {
                    frame.clear();
                    segment::frame(&mut frame, offset, &payload, &[]);
                    out.write_all(&frame)?;
                    kept += 1;
                }
            }
            // Whoever read the log was told.
            Found::Damage { next } => position = next,
            Found::Torn | Found::End => break,
        }
    }
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.set_modified(segment.metadata()?.modified()?)?;
    file.sync_all()?;
    Ok(kept)
}

/// Lets go what is older, and of the others the oldest beyond so many bytes.
pub(crate) fn forget(dir: &Path, older_than: Timestamp, limit: u64) -> std::io::Result<()> {
    let mut held = 0;
    for (path, modified, bytes) in list(dir)?.into_iter().rev() {
        held += bytes;
        let age = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis());
        if i64::try_from(age).unwrap_or(i64::MAX) < older_than.millis() || held > limit {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The record of this offset, if it is one of those that were kept.
pub(crate) fn find(dir: &Path, offset: u64) -> std::io::Result<Option<Record>> {
    let bases: Vec<u64> = list(dir)?
        .iter()
        .filter_map(|(path, ..)| path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()))
        .collect();
    let Some(base) = bases.into_iter().rfind(|base| *base <= offset) else { return Ok(None) };
    let (mut file, mut position) = (File::open(path(dir, base))?, 0);
    loop {
        match segment::read_at(&mut file, position)? {
            Found::Frame { offset: found, payload, next } if found == offset => {
                return Ok(record::at(base, (position, next - position), offset, &payload, &|_| false).ok());
            }
            Found::Frame { next, .. } | Found::Damage { next } => position = next,
            Found::Torn | Found::End => return Ok(None),
        }
    }
}

/// The files, the oldest first.
fn list(dir: &Path) -> std::io::Result<Vec<(PathBuf, SystemTime, u64)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir.join(FOLDER)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if path.extension().is_some_and(|extension| extension == "rest") {
            found.push((path, meta.modified()?, meta.len()));
        }
    }
    found.sort();
    Ok(found)
}
