//! The file system a local lake lies on.
//!
//! delta-rs writes local files without a sync, so after a power cut a table may name files that are empty. What is
//! synced here, all of the file system at once, is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use url::Url;

use crate::renew::renew;
use crate::{Error, repair};

/// A folder, by which its file system is synced.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: File,
    root: PathBuf,
    /// Syncs that failed.
    failures: AtomicU64,
    /// Tables of which nothing may be missing that was written since: how many syncs had failed by then.
    sound: Mutex<BTreeMap<PathBuf, u64>>,
    /// Has the next sync fail.
    #[cfg(test)]
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

impl Disk {
    /// The file system of this folder, which is created if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(root)?;
        Ok(Self {
            folder: File::open(root)?,
            root: root.to_owned(),
            failures: AtomicU64::new(0),
            sound: Mutex::default(),
            #[cfg(test)]
            broken: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Waits until everything written so far is on the disk, and notes that a table is, up to this version.
    pub(crate) fn sync(&self, table: &Url, version: u64) -> Result<(), Error> {
        let table = self.folder_of(table)?;
        let (noted, failures) = (repair::noted(&table), self.failures.load(Ordering::Acquire));
        let sound = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if noted != Some(version) {
            // A sync is told of a failure once; what it missed, no later one brings to the disk. Without a note a table is new, or came
            // here as a whole.
            let doubted = sound().get(&table).map_or(noted.is_some() || failures > 0, |then| *then != failures);
            if doubted {
                renew(&table, noted, version)?;
            }
            if let Err(error) = self.flush() {
                self.failures.fetch_add(1, Ordering::AcqRel);
                return Err(error.into());
            }
            repair::note(&table, version)?;
        }
        sound().insert(table, failures);
        Ok(())
    }

    fn flush(&self) -> std::io::Result<()> {
        #[cfg(test)]
        if self.broken.swap(false, Ordering::AcqRel) {
            return Err(std::io::Error::other("broken on purpose"));
        }
        Ok(nix::unistd::syncfs(&self.folder)?)
    }

    /// Makes a table's folder, or makes it good again.
    pub(crate) fn prepare(&self, table: &Url) -> Result<(), Error> {
        let folder = self.folder_of(table)?;
        std::fs::create_dir_all(&folder)?;
        for path in repair::repair(&folder)? {
            tracing::warn!(path = %path.display(), "put aside");
        }
        Ok(())
    }

    fn folder_of(&self, table: &Url) -> Result<PathBuf, Error> {
        let folder = table.to_file_path().ok().filter(|folder| folder.starts_with(&self.root));
        folder.ok_or_else(|| Error::Unavailable(format!("{table} is not below {}", self.root.display())))
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
    fn what_a_failed_sync_may_have_missed_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, table) = (Disk::open(dir.path()).unwrap(), dir.path().join("silver/samples"));
        let url = Url::from_directory_path(&table).unwrap();
        let places = |files: &[PathBuf; 2]| files.each_ref().map(|file| std::fs::metadata(file).unwrap().ino());
        let first = commit(&table, 0);
        disk.sync(&url, 0).unwrap();
        let (before, second) = (places(&first), commit(&table, 1));
        let doubtful = places(&second);
        disk.broken.store(true, Ordering::Release);
        assert!(disk.sync(&url, 1).is_err());
        assert_eq!((repair::noted(&table), places(&second)), (Some(0), doubtful));
        disk.sync(&url, 1).unwrap();
        assert_eq!(repair::noted(&table), Some(1));
        assert!(places(&second).iter().zip(doubtful).all(|(now, then)| *now != then), "new files under the old names");
        assert_eq!(std::fs::read(&second[0]).unwrap(), b"abc");
        assert_eq!(places(&first), before, "what was synced before stays as it is");
        let third = commit(&table, 2);
        let sound = places(&third);
        disk.sync(&url, 2).unwrap();
        assert_eq!(places(&third), sound, "and so does what comes after");
        // A process after this one cannot know what this one was told.
        let fourth = commit(&table, 3);
        let unknown = places(&fourth);
        // What another writer has on its way is his.
        let staged = table.join("_delta_log/00000000000000000003.json#1");
        std::fs::write(&staged, "{}").unwrap();
        let his = std::fs::metadata(&staged).unwrap().ino();
        Disk::open(dir.path()).unwrap().sync(&url, 3).unwrap();
        assert!(places(&fourth).iter().zip(unknown).all(|(now, then)| *now != then));
        assert_eq!(std::fs::metadata(&staged).unwrap().ino(), his);
    }
}
