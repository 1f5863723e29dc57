//! Rewrites files that may not be durable although the page cache considers them written.
//!
//! Problem: when a write-back fails, Linux reports it to one sync and marks the pages clean; the next sync succeeds
//! although the disk lacks the data. Model: after a reported failure, or at a start when a failure may have been
//! missed, every commit beyond the last sync and every file that it adds are copied to new files, synced one by one,
//! and renamed over the old ones. Files of a table never change, so readers are not affected.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use deltalake_core::kernel::Action;

/// Rewrites what the commits after `after` and up to `to` added.
pub(crate) fn rewrite_unsynced_files(table: &Path, after: Option<u64>, to: u64) -> Result<()> {
    let log = table.join("_delta_log");
    let from = after.map_or(0, |after| after + 1);
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(&log)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        // Never a staged file (`….json#1`): two writers use the same name one after the other, and one would commit the
        // other's content. Bar 5a found that.
        let is_log_file = name.ends_with(".json") || name.ends_with(".parquet");
        if !is_log_file || !version.is_some_and(|version| (from..=to).contains(&version)) {
            continue;
        }
        if name.ends_with(".json") {
            for line in std::fs::read_to_string(&path)?.lines() {
                if let Action::Add(add) = serde_json::from_str(line)? {
                    files.insert(table.join(add.path));
                }
            }
        }
        files.insert(path);
    }
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for file in files {
        match rewrite_file(&file) {
            // A later commit replaced the file, and it was vacuumed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done?,
        }
        folders.extend(file.parent().map(Path::to_owned));
    }
    folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
}

/// Replaces a file with a synced copy.
fn rewrite_file(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::other("file without a name"))?;
    let new_file = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let mut file = File::create(&new_file)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(new_file, path)
}
