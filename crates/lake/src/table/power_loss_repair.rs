//! Repairs a local table after a power cut: files that were never synced may be empty, torn or missing.
//!
//! Problem: delta-rs reads an empty commit file as an empty commit, so a table would open with fewer rows and no error.
//! Model: after every sync the table's newest version is recorded ([`record_synced_version`]). Damage beyond that
//! version is not relied on: the bus still has those records. The commits from the first damaged one on are quarantined
//! and written again. Damage up to that version is an error with a remedy.
//!
//! A torn checkpoint is quarantined together with `_last_checkpoint`, as long as the commits or an older checkpoint
//! hold the same. Nothing is deleted: quarantined files are in `_damaged` below the table.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use deltalake_core::kernel::Action;
use deltalake_core::parquet::file::metadata::ParquetMetaDataReader;

use crate::error::Error;
use crate::table::log_checksums::LogChecksums;

/// File that holds the newest synced version, in the log's folder.
const SYNCED_VERSION_FILE: &str = "_synced";

/// Records that everything up to this version is synced.
pub(crate) fn record_synced_version(table: &Path, version: u64) -> std::io::Result<()> {
    let log = table.join("_delta_log");
    // Named by process: another writer may record a version at the same time.
    let new_file = log.join(format!("{SYNCED_VERSION_FILE}.{}.new", std::process::id()));
    // Synced before the rename: an empty file after a power cut would make damage look unsynced.
    let mut file = File::create(&new_file)?;
    file.write_all(version.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new_file, log.join(SYNCED_VERSION_FILE))
}

/// Returns the version up to which everything is synced, if known.
pub(crate) fn synced_version(table: &Path) -> Option<u64> {
    std::fs::read_to_string(table.join("_delta_log").join(SYNCED_VERSION_FILE)).ok()?.trim().parse().ok()
}

/// Repairs a table's folder, and returns the quarantined files.
///
/// # Errors
/// Returns an error with a remedy if synced data is damaged.
pub(crate) fn repair_table(table: &Path) -> Result<Vec<PathBuf>, Error> {
    let log = table.join("_delta_log");
    if !log.is_dir() {
        return Ok(Vec::new());
    }
    let mut quarantine = Quarantine { folder: table.join("_damaged"), moved: Vec::new() };
    let synced = synced_version(table);
    let checksums = LogChecksums::read(table, synced)?;
    let (mut commits, mut checkpoints) = (BTreeMap::new(), BTreeMap::<u64, Vec<PathBuf>>::new());
    for entry in std::fs::read_dir(&log)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        match version.map(|version| (version, name.get(20..).unwrap_or_default())) {
            Some((version, ".json")) => drop(commits.insert(version, path)),
            Some((version, rest)) if rest.starts_with(".checkpoint") => {
                checkpoints.entry(version).or_default().push(path)
            }
            _ => {}
        }
    }
    let unrecoverable = |version: u64, item: &str| {
        Error::Damaged(format!(
            "{}: {item} {version} was synced and is damaged now; restore the table from a backup, or move the folder \
             away to create a new table from what the bus still holds",
            table.display()
        ))
    };
    // Only the newest one is read.
    let newest = checkpoints.last_key_value().map(|(version, _)| *version);
    for (version, paths) in &checkpoints {
        let is_intact =
            |path: &PathBuf| is_parquet_intact(path) && (Some(*version) != newest || checksums.matches_file(path));
        if !paths.iter().all(is_intact) {
            paths.iter().try_for_each(|path| quarantine.move_file(path))?;
            tracing::warn!(table = %table.display(), version, "quarantined a damaged checkpoint");
        }
    }
    checkpoints.retain(|_, paths| paths.iter().all(|path| path.exists()));
    let last = log.join("_last_checkpoint");
    if last.exists() && !last_checkpoint_version(&last).is_some_and(|version| checkpoints.contains_key(&version)) {
        quarantine.move_file(&last)?;
    }
    // Replay starts after the newest checkpoint, or at the first commit.
    let base = checkpoints.last_key_value().map(|(version, _)| *version);
    let mut next = base.map_or(0, |version| version + 1);
    let mut first_damaged = None;
    let newest = commits.last_key_value().map(|(version, _)| *version);
    while newest.is_some_and(|newest| next <= newest) {
        let check_files = synced.is_none_or(|at| next > at);
        let intact = commits.get(&next).is_some_and(|path| is_commit_intact(table, path, &checksums, check_files));
        if !intact {
            first_damaged = Some(next);
            break;
        }
        next += 1;
    }
    if let Some(first) = first_damaged {
        if synced.is_some_and(|synced| first <= synced) {
            return Err(unrecoverable(first, "commit"));
        }
        for path in commits.range(first..).map(|(_, path)| path) {
            quarantine.move_file(path)?;
        }
        tracing::warn!(table = %table.display(), version = first, "quarantined unsynced commits");
    } else if synced.is_some_and(|synced| next <= synced) {
        return Err(unrecoverable(next, "commit"));
    }
    if !quarantine.moved.is_empty() {
        File::open(&log)?.sync_all()?;
    }
    Ok(quarantine.moved)
}

/// Returns whether a commit matches its checksum, every line of it parses and, if `check_files`, the files it adds
/// exist in full size. Files of old commits may have been vacuumed.
fn is_commit_intact(table: &Path, path: &Path, checksums: &LogChecksums, check_files: bool) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    if !checksums.matches(path, text.as_bytes()) {
        return false;
    }
    let mut lines = 0;
    for line in text.lines() {
        let Ok(action) = serde_json::from_str::<Action>(line) else { return false };
        if let Action::Add(add) = action
            && check_files
        {
            let size = std::fs::metadata(table.join(&add.path)).map(|found| found.len());
            if !size.is_ok_and(|size| i64::try_from(size).is_ok_and(|size| size == add.size)) {
                return false;
            }
        }
        lines += 1;
    }
    lines > 0
}

/// Returns whether a Parquet file has a readable footer.
fn is_parquet_intact(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| ParquetMetaDataReader::new().parse_and_finish(&file).is_ok())
}

/// Returns the version that `_last_checkpoint` names.
fn last_checkpoint_version(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["version"].as_u64()
}

/// Folder to which damaged files are moved.
struct Quarantine {
    folder: PathBuf,
    moved: Vec<PathBuf>,
}

impl Quarantine {
    fn move_file(&mut self, path: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(&self.folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = (0..).map(|count| self.folder.join(format!("{name}.{count}"))).find(|path| !path.exists());
        let target = target.ok_or_else(|| Error::Unavailable("no free name for a quarantined file".into()))?;
        std::fs::rename(path, &target)?;
        self.moved.push(target);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
