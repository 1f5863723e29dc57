//! The lock of a data folder: one process writes to it at a time.
//!
//! Problem: two servers on one data folder both acknowledge, and each overwrites what the other wrote. Model: the
//! process that writes holds an exclusive lock on a file in the folder, which also says who that is. The processes that
//! a server starts inherit the lock, so it is free only once all of them have ended, however they were killed.
//! Guarantee: a command that changes a data folder fails with the name of the holder instead of writing beside it. The
//! folder itself is locked as well, so that this holds when the lock file of a running server is deleted.
//! Commands that are safe beside a server and beside each other (`token`, `lake maintain`, `backup`) are
//! refused beside any other holder.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

use crate::clock;

/// Name of the lock file in a data folder.
pub const LOCK_FILE: &str = "wardroom.lock";
/// Name of the command that runs a server.
pub const SERVE: &str = "serve";
/// Commands beside which others may work that are safe beside a server.
const SHARING_COMMANDS: [&str; 3] = [SERVE, "token", "lake maintain"];
/// Maximum wait for the lock: processes of a killed server may still be ending, and a short command may hold it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval between two attempts to lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum length of the holder's line, in bytes.
const MAX_HOLDER_BYTES: u64 = 1024;

/// Why a data folder cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum DataLockError {
    /// Another process works on the data folder.
    #[error(
        "data folder {} is in use by {holder}; two processes would overwrite each other's data: stop that one first, \
         or give another --data",
        .data.display()
    )]
    InUse {
        /// The data folder.
        data: PathBuf,
        /// The command that holds the lock, with its process id, host and start.
        holder: String,
    },
    /// The lock file cannot be created or locked.
    #[error("lock {}: {error}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The operating system's error.
        error: Error,
    },
}

/// The lock of a data folder, held until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    lock: Flock<File>,
    /// `None` on a file system that cannot lock folders.
    folder: Option<Flock<File>>,
}

impl DataLock {
    /// Locks an existing data folder for a command that needs it for itself.
    ///
    /// # Errors
    /// Returns an error if another process holds the lock, or if the file cannot be locked.
    pub fn acquire(data: &Path, command: &str) -> Result<Self, DataLockError> {
        match wait_for_lock(data, |_| false)? {
            LockAttempt::Locked(lock, folder) => Self::record_holder(lock, folder, data, command),
            LockAttempt::HeldBy(holder) => Err(DataLockError::InUse { data: data.to_owned(), holder: holder.0 }),
        }
    }

    /// Locks a data folder for a process that may have inherited the lock: returns `None` if it has.
    ///
    /// # Errors
    /// See [`DataLock::acquire`].
    pub fn acquire_unless_inherited(data: &Path, command: &str) -> Result<Option<Self>, DataLockError> {
        if is_inherited(data) { Ok(None) } else { Self::acquire(data, command).map(Some) }
    }

    /// Locks a data folder for a command that is safe beside a server: returns `None` if a server or another such
    /// command holds the lock, or if the folder does not exist.
    ///
    /// # Errors
    /// Returns an error if a command that needs the folder for itself holds the lock, or if the file cannot be locked.
    pub fn acquire_beside_server(data: &Path, command: &str) -> Result<Option<Self>, DataLockError> {
        if !data.is_dir() {
            return Ok(None);
        }
        match wait_for_lock(data, Holder::is_sharing)? {
            LockAttempt::Locked(lock, folder) => Self::record_holder(lock, folder, data, command).map(Some),
            LockAttempt::HeldBy(holder) if holder.is_sharing() => Ok(None),
            LockAttempt::HeldBy(holder) => Err(DataLockError::InUse { data: data.to_owned(), holder: holder.0 }),
        }
    }

    /// Returns whether a server may be running on a data folder; it is not disturbed. `true` if that cannot be found
    /// out.
    pub fn is_served(data: &Path) -> bool {
        let path = data.join(LOCK_FILE);
        let is_held = |path: &Path| match File::open(path) {
            // Shared for an instant: a process that is about to lock it repeats its attempt.
            Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
            Err(error) => error.kind() != ErrorKind::NotFound,
        };
        if is_held(&path) { Holder::read(&path).is_server() } else { is_held(data) }
    }

    /// Makes processes that are started from now on inherit the lock.
    ///
    /// # Errors
    /// Returns an error if the descriptor cannot be changed.
    pub fn inherit(&self) -> std::io::Result<()> {
        for lock in [Some(&self.lock), self.folder.as_ref()].into_iter().flatten() {
            fcntl(&**lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }

    /// Writes into the lock file who holds it.
    fn record_holder(
        lock: Flock<File>,
        folder: Option<Flock<File>>,
        data: &Path,
        command: &str,
    ) -> Result<Self, DataLockError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = Holder::new(command, std::process::id(), host.trim());
        // Without the line the lock works too; its loss would only make the error of the next process less clear.
        let written = lock.set_len(0).and_then(|()| writeln!(&*lock, "{}", holder.0));
        if let Err(error) = written {
            tracing::warn!(file = %data.join(LOCK_FILE).display(), %error, "writing the holder of the lock failed");
        }
        Ok(Self { lock, folder })
    }
}

/// The line in the lock file that says who holds the lock.
struct Holder(String);

impl Holder {
    fn new(command: &str, process: u32, host: &str) -> Self {
        Self(format!("wardroom {command} (process {process} on {host}, since {})", clock::now()))
    }

    /// Reads the holder; a process that has just locked the file may not have written it yet.
    fn read(path: &Path) -> Self {
        let mut line = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_HOLDER_BYTES).read_to_string(&mut line));
        let line = line.lines().next().unwrap_or_default();
        Self(if read.is_ok() && !line.is_empty() { line.to_owned() } else { "another process".to_owned() })
    }

    /// Whether it is a server, or unknown.
    fn is_server(&self) -> bool {
        !self.0.starts_with("wardroom ") || self.0.starts_with(&format!("wardroom {SERVE} "))
    }

    fn is_sharing(&self) -> bool {
        SHARING_COMMANDS.iter().any(|command| self.0.starts_with(&format!("wardroom {command} ")))
    }
}

enum LockAttempt {
    Locked(Flock<File>, Option<Flock<File>>),
    HeldBy(Holder),
}

/// Tries to lock until [`LOCK_TIMEOUT`], or until the holder is one that `accept_holder` selects.
fn wait_for_lock(data: &Path, accept_holder: impl Fn(&Holder) -> bool) -> Result<LockAttempt, DataLockError> {
    let path = data.join(LOCK_FILE);
    let io_error = |error: Error| DataLockError::Io { path: path.clone(), error };
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        // Not truncated: the content belongs to the holder.
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        match Flock::lock(file.map_err(io_error)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_current(&lock, &path) => match lock_folder(data).map_err(io_error)? {
                FolderLock::Locked(folder) => return Ok(LockAttempt::Locked(lock, folder)),
                FolderLock::Held => drop(lock),
            },
            // The file was deleted or replaced meanwhile: another process would lock the new one.
            Ok(_) => continue,
            Err((_, errno)) if Error::from(errno).kind() == ErrorKind::WouldBlock => {}
            Err((_, errno)) => return Err(io_error(errno.into())),
        }
        let holder = Holder::read(&path);
        if accept_holder(&holder) || Instant::now() >= deadline {
            return Ok(LockAttempt::HeldBy(holder));
        }
        std::thread::sleep(LOCK_RETRY_INTERVAL);
    }
}

enum FolderLock {
    /// Locked; `None` on a file system that cannot lock folders.
    Locked(Option<Flock<File>>),
    /// Another process holds it: the lock file that it holds was deleted.
    Held,
}

/// Locks the folder itself. The holder of the lock file can, unless the file is not the one that the holder has.
fn lock_folder(data: &Path) -> std::io::Result<FolderLock> {
    match Flock::lock(File::open(data)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(FolderLock::Locked(Some(lock))),
        Err((_, errno)) if Error::from(errno).kind() == ErrorKind::WouldBlock => Ok(FolderLock::Held),
        // Network file systems lock only files that are open for writing.
        Err(_) => Ok(FolderLock::Locked(None)),
    }
}

/// Whether the path still names this file.
fn is_current(file: &File, path: &Path) -> bool {
    let locked = file.metadata().map(|file| (file.dev(), file.ino()));
    locked.is_ok_and(|locked| identity(path) == Some(locked))
}

/// Whether this process has the lock file open, or had it when it was deleted: only a process that holds the lock
/// passes it on.
fn is_inherited(data: &Path) -> bool {
    let path = data.join(LOCK_FILE);
    let lock = identity(&path);
    let deleted = data.canonicalize().ok().map(|data| format!("{} (deleted)", data.join(LOCK_FILE).display()));
    let mut open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|entry| entry.path());
    open.any(|file| {
        let target = std::fs::read_link(&file).ok().map(|target| target.display().to_string());
        (lock.is_some() && identity(&file) == lock) || (deleted.is_some() && target == deleted)
    })
}

/// Device and inode of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_refused_with_the_name_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::acquire(dir.path(), SERVE).unwrap();
        let refused = DataLock::acquire(dir.path(), "restore").unwrap_err().to_string();
        let expected = format!("is in use by wardroom serve (process {} on ", std::process::id());
        assert!(refused.contains(&expected), "{refused}");
        drop(first);
        DataLock::acquire(dir.path(), "restore").unwrap();
    }

    #[test]
    fn a_running_server_is_told_from_commands_and_from_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!DataLock::is_served(dir.path()), "a new folder");
        for (holder, expected) in [(SERVE, true), ("token create", false)] {
            let held = DataLock::acquire(dir.path(), holder).unwrap();
            assert_eq!(DataLock::is_served(dir.path()), expected, "{holder}");
            drop(held);
            assert!(!DataLock::is_served(dir.path()), "{holder} has ended, and its line is still there");
        }
        let held = DataLock::acquire(dir.path(), SERVE).unwrap();
        std::fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        assert!(DataLock::is_served(dir.path()), "the lock file of a running server was deleted");
        drop(held);
        assert!(!DataLock::is_served(dir.path()));
    }

    #[test]
    fn commands_beside_a_server_are_refused_beside_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        for holder in [SERVE, "token create", "lake maintain"] {
            let held = DataLock::acquire(dir.path(), holder).unwrap();
            assert!(DataLock::acquire_beside_server(dir.path(), "backup").unwrap().is_none(), "{holder}");
            drop(held);
        }
        let restore = DataLock::acquire(dir.path(), "restore").unwrap();
        let refused = DataLock::acquire_beside_server(dir.path(), "token create").unwrap_err().to_string();
        assert!(refused.contains("wardroom restore (process"), "{refused}");
        drop(restore);
        assert!(DataLock::acquire_beside_server(dir.path(), "token create").unwrap().is_some());
        assert!(DataLock::acquire_beside_server(&dir.path().join("missing"), "backup").unwrap().is_none());
    }

    /// Deleting the lock file must not let a second process in that locks the same new file.
    #[test]
    fn lock_on_a_deleted_file_is_not_current() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        let first = DataLock::acquire(dir.path(), SERVE).unwrap();
        assert!(is_current(&first.lock, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_current(&first.lock, &path));
    }

    #[test]
    fn deleting_the_lock_file_lets_no_process_in() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::acquire(dir.path(), SERVE).unwrap();
        std::fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        assert!(is_inherited(dir.path()), "the holder's own processes still have it");
        let refused = DataLock::acquire(dir.path(), SERVE).unwrap_err();
        assert!(matches!(refused, DataLockError::InUse { .. }), "{refused}");
        assert!(DataLock::acquire_beside_server(dir.path(), "restore").is_err());
        drop(first);
        DataLock::acquire(dir.path(), SERVE).unwrap();
    }

    #[test]
    fn a_child_process_inherits_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataLock::acquire(dir.path(), SERVE).unwrap();
        let path = dir.path().join(LOCK_FILE).canonicalize().unwrap();
        let child_has_lock = || {
            #[expect(clippy::disallowed_methods, reason = "a test starts a process")]
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
            let found = open.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == path));
            child.kill().unwrap();
            child.wait().unwrap();
            found
        };
        assert!(!child_has_lock());
        assert!(is_inherited(dir.path()) && !is_inherited(&dir.path().join("other")));
        lock.inherit().unwrap();
        assert!(child_has_lock());
    }
}
