//! Errors of backup and restore.

use std::path::PathBuf;

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The bus could not be read.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// The state database is missing, empty or another folder's.
    #[error(transparent)]
    State(#[from] crate::state_database::StateDatabaseError),
    /// The store could not be read or copied.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// The tables could not be read.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// File I/O failed.
    #[error("{operation}: {error}")]
    Io {
        /// The operation that failed, or the file.
        operation: String,
        /// The operating system's error.
        error: std::io::Error,
    },
    /// Another process makes a backup to the same folder.
    #[error("another backup to {} is in progress", .0.display())]
    Locked(PathBuf),
    /// In every attempt the bus deleted records that the copy needs.
    #[error("the bus deletes records faster than they can be copied; raise bus.retention-hours")]
    RetentionTooShort,
    /// The manifest is damaged, or of a newer format.
    #[error("{}: {detail}", .path.display())]
    InvalidManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// The folder is not a backup and contains none.
    #[error("{} is not a backup and contains none", .0.display())]
    NoBackup(PathBuf),
    /// The folder to restore to has content.
    #[error("{} is not empty; restore to a new folder and start the server on that", .0.display())]
    NotEmpty(PathBuf),
    /// A file of the backup differs from its checksum.
    #[error("{}: {name} is damaged: {detail}; use another backup", .backup.display())]
    DamagedFile {
        /// The backup.
        backup: PathBuf,
        /// Relative path of the file.
        name: String,
        /// The difference.
        detail: String,
    },
    /// The restored state database is damaged.
    #[error("state: {0}")]
    DamagedState(String),
    /// The restored audit log could not be verified.
    #[error(transparent)]
    AuditLog(#[from] crate::audit_log::AuditLogError),
    /// The restored audit log is not the original.
    #[error("the audit log is not intact: {0}")]
    BrokenAuditLog(String),
    /// Records are missing between the first and the last record of the restored bus.
    #[error("bus: records {first} to {last} are damaged or missing")]
    BusGap {
        /// First missing offset.
        first: u64,
        /// Last missing offset.
        last: u64,
    },
    /// The restored tables do not match the restored bus.
    #[error(
        "the tables end at offset {}, but the bus has offsets {start} to {end}",
        .committed.map_or_else(|| "none".to_owned(), |committed| committed.to_string())
    )]
    InconsistentTables {
        /// Offset at which the tables end.
        committed: Option<u64>,
        /// First offset of the bus.
        start: u64,
        /// The offset after the last of the bus.
        end: u64,
    },
}

impl BackupError {
    /// Returns a function that wraps an I/O error with the operation that failed.
    pub(super) fn io<E: Into<std::io::Error>>(operation: impl FnOnce() -> String) -> impl FnOnce(E) -> Self {
        |error| Self::Io { operation: operation(), error: error.into() }
    }
}
