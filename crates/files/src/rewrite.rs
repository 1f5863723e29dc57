//! Rewriting a file whose sync has failed.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

/// Copies the first `len` bytes of a file to a new file, syncs that, renames it over the old one and opens it for
/// appending.
///
/// After a failed sync Linux marks the pages clean whatever the disk holds, so a second sync would succeed without
/// writing anything (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). The bytes can still
/// be read back; written to a new file, they can be synced again. Open readers keep the old file.
///
/// # Errors
/// Returns an error if the file is shorter than `len` or cannot be read, written, synced or renamed; the old file then
/// stays in place.
pub fn rewrite_prefix(path: &Path, len: u64) -> std::io::Result<File> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&temporary)?;
    let copied = std::io::copy(&mut File::open(path)?.take(len), &mut file)?;
    if copied != len {
        return Err(Error::new(ErrorKind::UnexpectedEof, format!("file has {copied} of {len} expected bytes")));
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    OpenOptions::new().read(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn keeps_the_prefix_and_appends_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "known and torn").unwrap();
        let old = File::open(&path).unwrap();
        rewrite_prefix(&path, 5).unwrap().write_all(b"!").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "known!");
        assert_eq!(old.metadata().unwrap().len(), 14, "open readers keep the old file");
        assert!(rewrite_prefix(&path, 100).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "known!");
    }
}
