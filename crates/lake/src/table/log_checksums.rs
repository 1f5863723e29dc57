//! Checksums of the log of a local table: commits and checkpoints.
//!
//! Problem: a flipped bit in a commit may still be valid JSON: another bus offset, other statistics by which files are
//! skipped, another partition. Model: at each sync the checksum of each new file of the log is appended to a file
//! beside them. Guarantee: damage up to the last sync is found by the next start and by `wardroom lake verify`; as with
//! damage that breaks a file, a commit is an error with a remedy, and a checkpoint is quarantined.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::Path;

/// File of checksums in the log's folder: a line with name and CRC-32 (hexadecimal) for each file.
const CHECKSUMS_FILE: &str = "_checksums";
/// Size at which the lines of deleted files are dropped, in bytes.
const MAX_CHECKSUMS_BYTES: u64 = 1 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 16;

/// The recorded checksums of a log, by file name.
pub(crate) struct LogChecksums(BTreeMap<String, u32>);

impl LogChecksums {
    /// Reads the checksums of what was synced. Lines beyond that may be those of commits that a power cut took back.
    pub(crate) fn read(table: &Path, synced: Option<u64>) -> Result<Self> {
        let mut all = recorded(&table.join("_delta_log"))?;
        all.retain(|name, _| version_of(name) <= synced);
        Ok(Self(all))
    }

    /// Returns whether this content of a file matches its checksum, if it has one.
    pub(crate) fn matches(&self, path: &Path, content: &[u8]) -> bool {
        self.expected(path).is_none_or(|expected| crc32fast::hash(content) == expected)
    }

    /// Returns whether a file matches its checksum, if it has one.
    pub(crate) fn matches_file(&self, path: &Path) -> bool {
        self.expected(path).is_none_or(|expected| checksum(path).is_ok_and(|found| found == expected))
    }

    fn expected(&self, path: &Path) -> Option<u32> {
        self.0.get(path.file_name()?.to_str()?).copied()
    }

    /// Returns the names of the files that differ from their checksum or cannot be read.
    pub(crate) fn damaged_files(&self, table: &Path) -> Vec<String> {
        let log = table.join("_delta_log");
        let is_damaged = |name: &&String| {
            let path = log.join(name);
            // delta-rs deletes old files of the log.
            path.exists() && !self.matches_file(&path)
        };
        self.0.keys().filter(is_damaged).cloned().collect()
    }
}

/// Appends the checksums of commits and checkpoints after the version `after` and up to `to`. Not synced.
pub(crate) fn record_log_checksums(table: &Path, after: Option<u64>, to: u64) -> Result<()> {
    let log = table.join("_delta_log");
    let mut lines = String::new();
    for name in log_files(&log)? {
        if version_of(&name).is_some_and(|version| after.is_none_or(|after| version > after) && version <= to) {
            lines.push_str(&line(&name, checksum(&log.join(&name))?));
        }
    }
    let path = log.join(CHECKSUMS_FILE);
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    if file.metadata()?.len() <= MAX_CHECKSUMS_BYTES {
        // One write, so that lines of two writers do not mix.
        return file.write_all(lines.as_bytes());
    }
    let known = recorded(&log)?;
    let kept = known.iter().filter(|(name, _)| log.join(name).exists());
    let kept: String = kept.map(|(name, crc)| line(name, *crc)).collect();
    let new_path = log.join(format!("{CHECKSUMS_FILE}.{}.new", std::process::id()));
    let mut new_file = File::create(&new_path)?;
    new_file.write_all((kept + &lines).as_bytes())?;
    new_file.sync_all()?;
    std::fs::rename(new_path, path)
}

/// Returns the recorded checksums by file name; the last line of a name counts. A line that cannot be read, as after a
/// power cut, is no checksum.
fn recorded(log: &Path) -> Result<BTreeMap<String, u32>> {
    let text = match std::fs::read(log.join(CHECKSUMS_FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => String::from_utf8_lossy(&read?).into_owned(),
    };
    let entry = |line: &str| {
        let (name, crc) = line.split_once(' ')?;
        let crc = Some(crc).filter(|crc| crc.len() == 8).and_then(|crc| u32::from_str_radix(crc, 16).ok())?;
        version_of(name).map(|_| (name.to_owned(), crc))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// Names of commits and checkpoints.
fn log_files(log: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(log)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if version_of(&name).is_some() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Returns the version in the name of a commit or checkpoint.
fn version_of(name: &str) -> Option<u64> {
    let rest = name.get(20..)?;
    let is_log_file = rest == ".json" || (rest.starts_with(".checkpoint") && rest.ends_with(".parquet"));
    name.get(..20).filter(|_| is_log_file)?.parse().ok()
}

fn line(name: &str, crc: u32) -> String {
    format!("{name} {crc:08x}\n")
}

fn checksum(path: &Path) -> Result<u32> {
    let (mut file, mut crc, mut buffer) = (File::open(path)?, crc32fast::Hasher::new(), vec![0; READ_BYTES]);
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        let bytes = buffer.get(..read).ok_or_else(|| Error::other("read beyond the buffer"))?;
        if bytes.is_empty() {
            return Ok(crc.finalize());
        }
        crc.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(table: &Path, synced: u64) -> Vec<String> {
        LogChecksums::read(table, Some(synced)).unwrap().damaged_files(table)
    }

    #[test]
    fn changes_of_recorded_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("_delta_log");
        std::fs::create_dir(&log).unwrap();
        assert_eq!(names(dir.path(), 9), Vec::<String>::new(), "a table of an earlier version");
        let commit = |version: u64| log.join(format!("{version:020}.json"));
        for version in 0..4 {
            std::fs::write(commit(version), format!("{{\"version\":{version}}}")).unwrap();
        }
        let checkpoint = log.join(format!("{:020}.checkpoint.parquet", 2));
        std::fs::write(&checkpoint, "checkpoint").unwrap();
        std::fs::write(log.join(format!("{:020}.json#1", 2)), "staged").unwrap();
        record_log_checksums(dir.path(), None, 1).unwrap();
        record_log_checksums(dir.path(), Some(1), 2).unwrap();
        std::fs::write(commit(3), "{\"version\":9}").unwrap();
        assert_eq!(names(dir.path(), 2), Vec::<String>::new(), "version 3 is not recorded yet");
        std::fs::write(commit(1), "{\"version\":9}").unwrap();
        std::fs::write(&checkpoint, "checkpoinT").unwrap();
        std::fs::remove_file(commit(0)).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(names(dir.path(), 2), [name(&commit(1)), name(&checkpoint)]);
        assert_eq!(names(dir.path(), 1), [name(&commit(1))], "version 2 was not synced, and may be another one now");
        // A torn last line, and one that is none.
        let mut file = OpenOptions::new().append(true).open(log.join(CHECKSUMS_FILE)).unwrap();
        file.write_all(b"what is this\n00000000000000000003.json 12").unwrap();
        assert_eq!(names(dir.path(), 9).len(), 2);
    }

    #[test]
    fn lines_of_deleted_files_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("_delta_log");
        std::fs::create_dir(&log).unwrap();
        let old: String = (0..40_000).map(|version| line(&format!("{version:020}.json"), 7)).collect();
        std::fs::write(log.join(CHECKSUMS_FILE), old).unwrap();
        let path = log.join(format!("{:020}.json", 40_000));
        std::fs::write(&path, "{}").unwrap();
        record_log_checksums(dir.path(), Some(39_999), 40_000).unwrap();
        assert_eq!(recorded(&log).unwrap().len(), 1);
        assert_eq!(names(dir.path(), 40_000), Vec::<String>::new());
        std::fs::write(path, "[]").unwrap();
        assert_eq!(names(dir.path(), 40_000).len(), 1);
    }
}
