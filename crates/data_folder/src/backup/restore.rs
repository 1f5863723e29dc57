//! Restores a data folder from a backup, and verifies it.

use std::fs::File;
use std::path::{Path, PathBuf};

use wardroom_bus::ReadOnlyBus;
use wardroom_domain::audit_head::FaultCode;
use wardroom_lake::{Lake, TableSnapshot};
use wardroom_process::data_lock::LOCK_FILE;

use super::backup_error::BackupError;
use super::file_copy::{CopyProgress, copy_file};
use super::manifest::{Manifest, list_backups};
use crate::audit_log::verify_audit_log;
use crate::state_database::{RequiredState, open_state};
use wardroom_config::Config;

/// Records read from the bus at once.
const READ_BATCH_RECORDS: usize = 256;

/// What the verification of a data folder found.
#[derive(Debug)]
pub struct VerificationReport {
    /// First offset of the bus.
    pub bus_start: u64,
    /// The offset after the last of the bus.
    pub bus_end: u64,
    /// Number of entries of the audit log.
    pub audit_entries: i64,
    /// The tables.
    pub tables: Vec<TableSnapshot>,
}

/// Returns the backup to restore: the folder itself, or the newest backup in it.
///
/// # Errors
/// Returns an error if the folder cannot be read or contains no backup.
pub fn find_backup(from: &Path) -> Result<PathBuf, BackupError> {
    if Manifest::read(from).is_ok() {
        return Ok(from.to_owned());
    }
    list_backups(from)?.pop().ok_or_else(|| BackupError::NoBackup(from.to_owned()))
}

/// Copies every file of a backup to a new or empty data folder, compares it with its checksum, and syncs to disk.
///
/// # Errors
/// Returns an error if the data folder is not empty, a file is damaged, or a file cannot be read or written.
pub fn restore_files(
    backup: &Path,
    manifest: &Manifest,
    data: &Path,
    config: &Config,
    on_progress: &mut dyn FnMut(CopyProgress<'_>),
) -> Result<(), BackupError> {
    let lake = config.lake.folder(data)?;
    let lake = lake.as_deref();
    for folder in [Some(data), lake].into_iter().flatten() {
        if !is_empty(folder)? {
            return Err(BackupError::NotEmpty(folder.to_owned()));
        }
    }
    for (name, expected) in &manifest.files {
        on_progress(CopyProgress::File(name));
        let to = match (name.strip_prefix("lake/"), lake) {
            (Some(below), Some(lake)) => lake.join(below),
            _ => data.join(name),
        };
        let copied = copy_file(&backup.join(name), &to, |bytes| on_progress(CopyProgress::Bytes(bytes)))?;
        if copied != *expected {
            let detail = format!(
                "it has {} bytes with SHA-256 {}, expected {} and {}",
                copied.bytes, copied.sha256, expected.bytes, expected.sha256
            );
            return Err(BackupError::DamagedFile { backup: backup.to_owned(), name: name.clone(), detail });
        }
    }
    let folder = File::open(data).map_err(BackupError::io(|| data.display().to_string()))?;
    nix::unistd::syncfs(&folder).map_err(BackupError::io(|| format!("sync {}", data.display())))
}

/// Whether a folder does not exist or has no entries; the lock file of the data folder does not count.
fn is_empty(folder: &Path) -> Result<bool, BackupError> {
    if !folder.exists() {
        return Ok(true);
    }
    let entries = std::fs::read_dir(folder).map_err(BackupError::io(|| format!("list {}", folder.display())))?;
    Ok(entries.flatten().all(|entry| entry.file_name() == LOCK_FILE))
}

/// Opens state, bus and tables like a server, and checks that they are intact and consistent with each other.
///
/// # Errors
/// Returns an error if they cannot be read, are damaged, or do not match.
pub async fn verify_data_folder(data: &Path, config: &Config) -> Result<VerificationReport, BackupError> {
    let store = open_state(data, RequiredState::Tables).await?;
    if let Some(error) = store.integrity_check().await? {
        return Err(BackupError::DamagedState(error));
    }
    store.close().await;
    let audit = verify_audit_log(data, None, None).await?;
    // A server that is started on the folder signs what is not signed yet.
    if let Some(fault) = audit.faults.into_iter().find(|fault| fault.code != FaultCode::SigningBehind) {
        return Err(BackupError::BrokenAuditLog(fault.detail));
    }
    let (start, end) = contiguous_range(&ReadOnlyBus::open(&data.join("bus"))?)?;
    let mut tables = Vec::new();
    if config.lake.enabled
        && let Some(lake) = Lake::open_read_only(&config.lake, data).await?
    {
        let committed = lake.committed_offset().await?;
        let consistent = committed.is_none_or(|offset| (start..=end).contains(&offset) || start == end);
        if !consistent {
            return Err(BackupError::InconsistentTables { committed, start, end });
        }
        tables = lake.verify_snapshot().await?;
    }
    Ok(VerificationReport { bus_start: start, bus_end: end, audit_entries: audit.entries, tables })
}

/// Returns the first offset of a bus and the one after the last.
///
/// # Errors
/// Returns an error if an offset in between is missing, other than before a new epoch.
fn contiguous_range(bus: &ReadOnlyBus) -> Result<(u64, u64), BackupError> {
    let (mut start, mut next, epochs) = (None, 0, bus.epochs()?);
    loop {
        let records = bus.read(next, READ_BATCH_RECORDS)?;
        if records.is_empty() {
            // After a new epoch without a record yet, the log ends where the epoch starts.
            let end = epochs.last().map_or(next, |epoch| next.max(*epoch));
            return Ok((start.unwrap_or(end), end));
        }
        for record in records {
            if start.is_some() && record.offset != next && !epochs.contains(&record.offset) {
                return Err(BackupError::BusGap { first: next, last: record.offset - 1 });
            }
            start = start.or(Some(record.offset));
            next = record.offset + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use wardroom_bus::{Bus, EmbeddedBus, contract, start_new_epoch};

    use super::*;

    /// What was processed ends where the epoch starts, so the log has to end there as well.
    #[tokio::test]
    async fn the_range_of_a_bus_ends_at_a_new_epoch_without_records() {
        let dir = tempfile::tempdir().unwrap();
        let append = async || {
            let bus = EmbeddedBus::open(dir.path(), wardroom_bus::Config::default()).unwrap();
            bus.append(contract::envelope(0), b"x".to_vec().into()).await.unwrap();
        };
        let range = || contiguous_range(&ReadOnlyBus::open(dir.path()).unwrap()).unwrap();
        append().await;
        append().await;
        assert_eq!(range(), (0, 2));
        start_new_epoch(dir.path(), 10).unwrap();
        assert_eq!(range(), (0, 10));
        append().await;
        assert_eq!(range(), (0, 11));
    }
}
