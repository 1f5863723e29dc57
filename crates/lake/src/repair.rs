//! A local table after a power cut: what was never synced may be empty, torn or missing.
//!
//! Problem: delta-rs takes an empty commit file for an empty commit, so a table would open, say nothing, and hold less than it
//! did. Model: after every sync the table's newest version is noted ([`note`]). What is damaged beyond the note was
//! never relied on: the bus has it, so those commits are put aside, from the first damaged one on, and written
//! again. What is damaged up to the note is not ours to hide: the table is refused with a remedy.
//!
//! A checkpoint that is not whole is put aside, and `_last_checkpoint` with it, as long as the commits or an older checkpoint
//! hold the same. Nothing is deleted: what was put aside lies in `_damaged` below the table.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use deltalake_core::kernel::Action;
use deltalake_core::parquet::file::metadata::ParquetMetaDataReader;

use crate::Error;

/// Where the newest synced version is noted, below the log's folder.
const NOTE: &str = "_synced";

/// Notes that everything up to this version is on the disk.
pub(crate) fn note(table: &Path, version: u64) -> std::io::Result<()> {
    let log = table.join("_delta_log");
    // Of its own: another writer, whose turn is over and who does not know it yet, may note one, too.
    let fresh = log.join(format!("{NOTE}.{}.new", std::process::id()));
    // An empty note after a power cut would let damage pass for what was never synced.
    let mut file = File::create(&fresh)?;
    file.write_all(version.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(fresh, log.join(NOTE))
}

/// Up to which version everything is on the disk, as far as is known.
pub(crate) fn noted(table: &Path) -> Option<u64> {
    std::fs::read_to_string(table.join("_delta_log").join(NOTE)).ok()?.trim().parse().ok()
}

/// Makes a table's folder good again and says what was put aside.
///
/// # Errors
/// What is damaged is not on the bus: the message names the remedy.
pub(crate) fn repair(table: &Path) -> Result<Vec<PathBuf>, Error> {
    let log = table.join("_delta_log");
    if !log.is_dir() {
        return Ok(Vec::new());
    }
    let mut aside = Aside { folder: table.join("_damaged"), moved: Vec::new() };
    let synced = noted(table);
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
    let lost = |version: u64, what: &str| {
        Error::Damaged(format!(
            "{}: {what} {version} was whole once and is not now; put the table back from a backup, or move the folder \
             away to begin a new one from what the bus still holds",
            table.display()
        ))
    };
    for (version, paths) in &checkpoints {
        if !paths.iter().all(|path| whole_parquet(path)) {
            paths.iter().try_for_each(|path| aside.take(path))?;
            tracing::warn!(table = %table.display(), version, "a torn checkpoint was put aside");
        }
    }
    checkpoints.retain(|_, paths| paths.iter().all(|path| path.exists()));
    let last = log.join("_last_checkpoint");
    if last.exists() && !hint(&last).is_some_and(|version| checkpoints.contains_key(&version)) {
        aside.take(&last)?;
    }
    // The table stands on the newest checkpoint, or on its first commit.
    let base = checkpoints.last_key_value().map(|(version, _)| *version);
    let mut wanted = base.map_or(0, |version| version + 1);
    let mut broken = None;
    let newest = commits.last_key_value().map(|(version, _)| *version);
    while newest.is_some_and(|newest| wanted <= newest) {
        let sound =
            commits.get(&wanted).is_some_and(|path| whole_commit(table, path, synced.is_none_or(|at| wanted > at)));
        if !sound {
            broken = Some(wanted);
            break;
        }
        wanted += 1;
    }
    if let Some(first) = broken {
        if synced.is_some_and(|synced| first <= synced) {
            return Err(lost(first, "commit"));
        }
        for path in commits.range(first..).map(|(_, path)| path) {
            aside.take(path)?;
        }
        tracing::warn!(table = %table.display(), version = first, "commits that no sync covered were put aside");
    } else if synced.is_some_and(|synced| wanted <= synced) {
        return Err(lost(wanted, "commit"));
    }
    if !aside.moved.is_empty() {
        File::open(&log)?.sync_all()?;
    }
    Ok(aside.moved)
}

/// Whether every line of a commit can be read, and the files it adds are there in full. Files of an old commit may have
/// been swept up since, so `files` says whether to look at them.
fn whole_commit(table: &Path, path: &Path, files: bool) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let mut lines = 0;
    for line in text.lines() {
        let Ok(action) = serde_json::from_str::<Action>(line) else { return false };
        if let Action::Add(add) = action
            && files
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

fn whole_parquet(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| ParquetMetaDataReader::new().parse_and_finish(&file).is_ok())
}

/// The checkpoint that `_last_checkpoint` points to.
fn hint(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["version"].as_u64()
}

struct Aside {
    folder: PathBuf,
    moved: Vec<PathBuf>,
}

impl Aside {
    fn take(&mut self, path: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(&self.folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let free = (0..).map(|count| self.folder.join(format!("{name}.{count}"))).find(|place| !place.exists());
        let place = free.ok_or_else(|| Error::Unavailable("no free name to put a damaged file aside".into()))?;
        std::fs::rename(path, &place)?;
        self.moved.push(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
