//! The sandbox of the process that parses untrusted input (ADR 012).
//!
//! Landlock, effective for root too: the process and all its threads can read system files, write to their own folders,
//! and access nothing else. The executor's configuration and ledger are outside; and a sandboxed process cannot inspect
//! a process outside its Landlock domain (`/proc/PID/environ`, `/proc/PID/mem`).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus,
};

/// The isolation of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Landlock is enforced.
    Landlock,
    /// None: the kernel does not support Landlock.
    None,
}

impl Isolation {
    /// Returns the spelling in `/readyz`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }
}

/// Subfolders of the data folder that the server may write to.
pub const WRITABLE_FOLDERS: [&str; 4] = ["bus", "state", "checkpoint", "dead-letters"];

/// System paths that the server may read: libraries, certificates, name resolution, randomness.
const READABLE_SYSTEM_PATHS: [&str; 12] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ssl",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/null",
    "/proc/self",
    "/sys/fs/cgroup",
];

/// Restricts the calling thread, and all threads it starts, to the files that a server needs: the writable subfolders
/// of the data folder, the lake if it is on a local disk, and the paths in `readable`. Call before starting other
/// threads.
pub fn sandbox_server(data: &Path, lake: Option<PathBuf>, readable: &[PathBuf]) -> Isolation {
    let writable: Vec<_> = WRITABLE_FOLDERS.map(|folder| data.join(folder)).into_iter().chain(lake).collect();
    sandbox(&writable, readable)
}

fn sandbox(writable: &[PathBuf], readable: &[PathBuf]) -> Isolation {
    match restrict(writable, readable) {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Isolation::Landlock,
        Ok(_) => Isolation::None,
        Err(error) => {
            tracing::warn!(%error, "enabling Landlock failed; the process is not sandboxed");
            Isolation::None
        }
    }
}

fn restrict(writable: &[PathBuf], readable: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    let abi = ABI::V5;
    let read = AccessFs::from_read(abi);
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    let system = READABLE_SYSTEM_PATHS.iter().map(Path::new);
    for path in system.chain(readable.iter().map(PathBuf::as_path)) {
        // Missing paths need no rule.
        if let Ok(fd) = PathFd::new(path) {
            let access = if path.is_dir() { read } else { read & AccessFs::from_file(abi) };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    for path in writable {
        if let Ok(fd) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, AccessFs::from_all(abi) & !AccessFs::Execute))?;
        }
    }
    ruleset.restrict_self()
}
