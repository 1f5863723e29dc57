//! The file system a local lake lies on.
//!
//! delta-rs writes local files without a sync, so after a power cut a table may name files that are empty. What is
//! synced here, all of the file system at once, is whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use url::Url;

use crate::{Error, repair};

/// A folder, by which its file system is synced.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: File,
    root: PathBuf,
}

impl Disk {
    /// The file system of this folder, which is created if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(root)?;
        Ok(Self { folder: File::open(root)?, root: root.to_owned() })
    }

    /// Waits until everything written so far is on the disk, and notes that a table is, up to this version.
    pub(crate) fn sync(&self, table: &Url, version: u64) -> Result<(), Error> {
        let table = self.folder_of(table)?;
        if repair::noted(&table) == Some(version) {
            return Ok(());
        }
        nix::unistd::syncfs(&self.folder).map_err(std::io::Error::from)?;
        Ok(repair::note(&table, version)?)
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
