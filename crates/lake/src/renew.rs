//! Files that may not be on the disk though the system holds them for written: written anew.
//!
//! Problem: when a sync fails, Linux has told so once and holds the pages for clean from then on; the next sync says "yes" to what the
//! disk does not have. Model: whoever was told of a failure, or cannot know whether there was one because a process before it wrote,
//! takes every file that commits beyond the last sync name, and these commits, writes their bytes to a new file, syncs that by itself,
//! and puts it in the old one's place. Files of a table never change, so nobody who reads notices.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use deltalake_core::kernel::Action;

/// Writes anew what the commits after one version, up to another, brought.
pub(crate) fn renew(table: &Path, after: Option<u64>, to: u64) -> Result<()> {
    let log = table.join("_delta_log");
    let from = after.map_or(0, |after| after + 1);
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(&log)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        // Never one that is on its way under a name of its own (`….json#1`): two writers use the same one after the other, and
        // the one would commit what the other wanted to. Bar 5a found that.
        let whole = name.ends_with(".json") || name.ends_with(".parquet");
        if !whole || !version.is_some_and(|version| (from..=to).contains(&version)) {
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
        match again(&file) {
            // A later commit replaced it, and it was swept up.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done?,
        }
        folders.extend(file.parent().map(Path::to_owned));
    }
    folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
}

fn again(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::other("a file without a name"))?;
    let fresh = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let mut file = File::create(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}
