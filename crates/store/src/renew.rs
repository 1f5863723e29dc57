//! What to do with a file whose sync has failed.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

/// Copies the first `len` bytes of a file into a new one, which takes its name once it is on the disk, and opens that
/// for adding to it.
///
/// After a failed sync the system counts the pages as clean, whatever the disk has, so that a second sync would say
/// "yes" to anything (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). What this process
/// wrote can still be read back; written anew, a sync means something again. Readers of the old file keep it.
///
/// # Errors
/// The disk's, or the file is shorter; then the old one stays as it is.
pub fn renew(path: &Path, len: u64) -> std::io::Result<File> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&fresh)?;
    let copied = std::io::copy(&mut File::open(path)?.take(len), &mut file)?;
    if copied != len {
        return Err(Error::new(ErrorKind::UnexpectedEof, format!("{copied} of {len} bytes are there")));
    }
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
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
    fn the_new_file_holds_what_was_known_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "known and torn").unwrap();
        let old = File::open(&path).unwrap();
        renew(&path, 5).unwrap().write_all(b"!").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "known!");
        assert_eq!(old.metadata().unwrap().len(), 14, "whoever reads the old one keeps it");
        assert!(renew(&path, 100).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "known!");
    }
}
