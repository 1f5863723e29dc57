//! Backup and restore of a data folder.
//!
//! ```text
//! BackupSchedule ─► create_backup ─► backup folder with manifest ─► restore_files ─► verify_data_folder
//! ```
//!
//! This runs in its own process: the sandboxed server can access neither the executor's ledger nor other folders. Only
//! one process at a time writes to a folder of backups; it first removes incomplete backups of interrupted processes.

mod backup_error;
mod backup_status;
mod data_copy;
mod file_copy;
mod manifest;
mod restore;
mod schedule;

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

pub use backup_error::BackupError;
pub use backup_status::{LastBackup, last_backup};
pub use file_copy::CopyProgress;
pub use manifest::{FileEntry, Manifest};
pub use restore::{VerificationReport, find_backup, restore_files, verify_data_folder};
pub use schedule::BackupSchedule;

use data_copy::{BackupCopy, copy_data_folder};
use file_copy::create_private_parent;
use manifest::list_backups;
use wardroom_config::Config;

/// Attempts to copy a data folder before the bus deletes records that the copy needs.
const MAX_ATTEMPTS: usize = 3;
/// Lock file in the folder of backups, held while one is made.
const LOCK_FILE: &str = ".lock";

/// What to back up, and where to.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The data folder; a server may be running on it.
    pub data: PathBuf,
    /// Folder of backups.
    pub to: PathBuf,
    /// Number of backups to keep in the folder; all if `None` or 0.
    pub keep: Option<u32>,
    /// Whether only to report what would be copied.
    pub dry_run: bool,
}

/// A complete backup; with `dry_run` what it would be.
#[derive(Debug)]
pub struct Backup {
    /// Folder of the backup.
    pub path: PathBuf,
    /// Its contents.
    pub manifest: Manifest,
    /// Bytes shared with the previous backup by hard links.
    pub linked_bytes: u64,
    /// Old backups that were removed.
    pub removed: Vec<PathBuf>,
}

/// Copies a data folder to a new backup, records it for the metrics, and removes old backups.
///
/// # Errors
/// See [`BackupError`].
pub async fn create_backup(
    config: &Config,
    options: &BackupOptions,
    on_progress: &mut (dyn FnMut(CopyProgress<'_>) + Send),
) -> Result<Backup, BackupError> {
    let BackupOptions { data, to, dry_run, .. } = options;
    let _lock = if *dry_run { None } else { Some(lock_folder(to)?) };
    for attempt in 1..=MAX_ATTEMPTS {
        if let Some(copied) = copy_data_folder(data, config, to, *dry_run, on_progress).await? {
            return finish_backup(copied, options);
        }
        if attempt < MAX_ATTEMPTS {
            tracing::warn!(attempt, "the bus deleted records that the backup needs; retrying");
            on_progress(CopyProgress::Restarted);
        }
    }
    Err(BackupError::RetentionTooShort)
}

/// Locks the folder of backups, and removes incomplete backups.
fn lock_folder(to: &Path) -> Result<Flock<File>, BackupError> {
    let lock_file = to.join(LOCK_FILE);
    create_private_parent(&lock_file).map_err(BackupError::io(|| format!("create {}", to.display())))?;
    let file = File::create(&lock_file).map_err(BackupError::io(|| format!("create {}", lock_file.display())))?;
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        return Err(BackupError::Locked(to.to_owned()));
    };
    let list_error = || format!("list {}", to.display());
    for entry in std::fs::read_dir(to).map_err(BackupError::io(list_error))? {
        let entry = entry.map_err(BackupError::io(list_error))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden && entry.file_type().map_err(BackupError::io(list_error))?.is_dir() {
            remove_backup(&entry.path())?;
        }
    }
    Ok(lock)
}

/// Records the backup for the metrics, and removes old backups.
fn finish_backup(copied: BackupCopy, options: &BackupOptions) -> Result<Backup, BackupError> {
    let BackupCopy { path, manifest, linked_bytes } = copied;
    let mut removed = Vec::new();
    if !options.dry_run {
        let recorded = backup_status::record(&options.data, manifest.taken_at, manifest.total_bytes());
        recorded.map_err(BackupError::io(|| format!("record the backup in {}", options.data.display())))?;
        let mut existing = list_backups(&options.to)?;
        let keep = options.keep.filter(|keep| *keep > 0).map_or(existing.len(), |keep| keep as usize);
        existing.truncate(existing.len().saturating_sub(keep));
        for old in existing {
            remove_backup(&old)?;
            removed.push(old);
        }
    }
    Ok(Backup { path, manifest, linked_bytes, removed })
}

fn remove_backup(path: &Path) -> Result<(), BackupError> {
    std::fs::remove_dir_all(path).map_err(BackupError::io(|| format!("remove {}", path.display())))
}
