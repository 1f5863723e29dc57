//! The file system of a local lake.
//!
//! delta-rs writes local files without a sync, so after a power cut a table may name empty files. A sync here covers
//! the whole file system and then records the version up to which a table is durable.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use url::Url;

use crate::error::Error;
use crate::table::log_checksums::record_log_checksums;
use crate::table::power_loss_repair::{record_synced_version, repair_table, synced_version};
use crate::table::unsynced_rewrite::rewrite_unsynced_files;

/// A lake's folder, and the state of its syncs.
#[derive(Debug)]
pub(crate) struct LocalDisk {
    folder: File,
    root: PathBuf,
    /// Number of failed syncs.
    failures: AtomicU64,
    /// Tables without unsynced files from before, with the number of failed syncs at that time.
    verified: Mutex<BTreeMap<PathBuf, u64>>,
    /// Makes the next sync fail.
    #[cfg(test)]
    pub(crate) fail_next_sync: std::sync::atomic::AtomicBool,
}

impl LocalDisk {
    /// Opens the file system of this folder; creates the folder if missing.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(root)?;
        Ok(Self {
            folder: File::open(root)?,
            root: root.to_owned(),
            failures: AtomicU64::new(0),
            verified: Mutex::default(),
            #[cfg(test)]
            fail_next_sync: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Syncs everything written so far, and records that the table is durable up to this version.
    pub(crate) fn sync(&self, table: &Url, version: u64) -> Result<(), Error> {
        let table = self.folder_of(table)?;
        let (synced, failures) = (synced_version(&table), self.failures.load(Ordering::Acquire));
        let verified = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if synced != Some(version) {
            // The kernel reports a write error to one sync only, and later syncs skip the affected pages. Without a
            // recorded version the table is new or was copied as a whole.
            let needs_rewrite =
                verified().get(&table).map_or(synced.is_some() || failures > 0, |then| *then != failures);
            if needs_rewrite {
                rewrite_unsynced_files(&table, synced, version)?;
            }
            record_log_checksums(&table, synced, version)?;
            if let Err(error) = self.sync_file_system() {
                self.failures.fetch_add(1, Ordering::AcqRel);
                return Err(error.into());
            }
            record_synced_version(&table, version)?;
        }
        verified().insert(table, failures);
        Ok(())
    }

    fn sync_file_system(&self) -> std::io::Result<()> {
        #[cfg(test)]
        if self.fail_next_sync.swap(false, Ordering::AcqRel) {
            return Err(std::io::Error::other("injected failure"));
        }
        Ok(nix::unistd::syncfs(&self.folder)?)
    }

    /// Creates a table's folder, or repairs the table.
    pub(crate) fn prepare_table(&self, table: &Url) -> Result<(), Error> {
        let folder = self.folder_of(table)?;
        std::fs::create_dir_all(&folder)?;
        for path in repair_table(&folder)? {
            tracing::warn!(path = %path.display(), "quarantined a damaged file");
        }
        Ok(())
    }

    fn folder_of(&self, table: &Url) -> Result<PathBuf, Error> {
        let folder = table.to_file_path().ok().filter(|folder| folder.starts_with(&self.root));
        folder.ok_or_else(|| Error::Unavailable(format!("{table} is not inside {}", self.root.display())))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn commit(table: &Path, version: u64) -> [PathBuf; 2] {
        let (name, log) = (format!("part-{version}.parquet"), table.join("_delta_log"));
        std::fs::create_dir_all(&log).unwrap();
        let action = serde_json::json!({ "add": { "path": name, "partitionValues": {}, "size": 3, "modificationTime": 0,
            "dataChange": true } });
        let files = [table.join(name), log.join(format!("{version:020}.json"))];
        std::fs::write(&files[0], "abc").unwrap();
        std::fs::write(&files[1], format!("{action}\n")).unwrap();
        files
    }

    #[test]
    fn rewrites_files_after_a_failed_sync() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, table) = (LocalDisk::open(dir.path()).unwrap(), dir.path().join("silver/samples"));
        let url = Url::from_directory_path(&table).unwrap();
        let inodes = |files: &[PathBuf; 2]| files.each_ref().map(|file| std::fs::metadata(file).unwrap().ino());
        let first = commit(&table, 0);
        disk.sync(&url, 0).unwrap();
        let (before, second) = (inodes(&first), commit(&table, 1));
        let suspect = inodes(&second);
        disk.fail_next_sync.store(true, Ordering::Release);
        assert!(disk.sync(&url, 1).is_err());
        assert_eq!((synced_version(&table), inodes(&second)), (Some(0), suspect));
        disk.sync(&url, 1).unwrap();
        assert_eq!(synced_version(&table), Some(1));
        assert!(inodes(&second).iter().zip(suspect).all(|(now, then)| *now != then), "new files under the same names");
        assert_eq!(std::fs::read(&second[0]).unwrap(), b"abc");
        assert_eq!(inodes(&first), before, "files synced before are not rewritten");
        let third = commit(&table, 2);
        let verified = inodes(&third);
        disk.sync(&url, 2).unwrap();
        assert_eq!(inodes(&third), verified, "later files are not rewritten");
        // A new process cannot know of an earlier failure.
        let fourth = commit(&table, 3);
        let unknown = inodes(&fourth);
        // Staged files of another writer are not touched.
        let staged = table.join("_delta_log/00000000000000000003.json#1");
        std::fs::write(&staged, "{}").unwrap();
        let staged_inode = std::fs::metadata(&staged).unwrap().ino();
        LocalDisk::open(dir.path()).unwrap().sync(&url, 3).unwrap();
        assert!(inodes(&fourth).iter().zip(unknown).all(|(now, then)| *now != then));
        assert_eq!(std::fs::metadata(&staged).unwrap().ino(), staged_inode);
    }
}
