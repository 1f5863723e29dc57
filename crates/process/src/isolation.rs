//! Confinement of the process that parses hostile bytes (decision D12).
//!
//! Landlock, for root too: from here on this process and all its threads can read system files, write
//! their own folders, and nothing else. Neither the executor's file nor its ledger lies there; and a
//! confined process may not look into one outside its domain (`/proc/PID/environ`, `/proc/PID/mem`).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus,
};

/// How well this process is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// By Landlock.
    Landlock,
    /// Not at all: the kernel has none.
    None,
}

impl Isolation {
    /// The word, as `/readyz` shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }
}

/// What of the data folder the server writes to.
pub const FOLDERS: [&str; 4] = ["bus", "state", "checkpoint", "dead-letters"];

/// Files of the system that a server may read: libraries, certificates, name resolution, randomness.
const READABLE: [&str; 12] = [
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

/// Confines the calling thread and all it will start to what the server of a data folder needs, and of a lake if that is
/// on a local disk. Call before any other thread exists.
pub fn confine_server(data: &Path, lake: Option<PathBuf>, readable: &[PathBuf]) -> Isolation {
    let writable: Vec<_> = FOLDERS.map(|folder| data.join(folder)).into_iter().chain(lake).collect();
    confine(&writable, readable)
}

fn confine(writable: &[PathBuf], readable: &[PathBuf]) -> Isolation {
    match restrict(writable, readable) {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Isolation::Landlock,
        Ok(_) => Isolation::None,
        Err(error) => {
            tracing::warn!(%error, "landlock failed");
            Isolation::None
        }
    }
}

fn restrict(writable: &[PathBuf], readable: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    let abi = ABI::V5;
    let read = AccessFs::from_read(abi);
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    let system = READABLE.iter().map(Path::new);
    for path in system.chain(readable.iter().map(PathBuf::as_path)) {
        // What is not there need not be allowed.
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
