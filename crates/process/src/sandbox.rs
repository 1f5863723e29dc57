//! The sandboxes of the server, its query workers and the executor (ADR 012).
//!
//! Problem: the server parses untrusted input. An attacker who takes it over must not reach the executor: its
//! configuration, its ledger and keys, its memory. Model: the kernel restricts the process and all threads that it
//! starts, for root too. Landlock allows the files named here, and signals to no other process; a seccomp filter
//! refuses system calls that start programs, inspect processes or change the system. Guarantee: what is not named here
//! cannot be opened; [`Confinement`] says what this kernel cannot enforce.
//!
//! Landlock decides by the place of a file in the file system, so a folder named here must not contain files of the
//! executor: [`Sandbox::exposes`].

mod system_calls;
mod system_paths;

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use wardroom_domain::executor::Confinement;

use crate::crash;

/// Landlock's interface whose restrictions are asked for; an older kernel enforces what it can.
const LANDLOCK_ABI: ABI = ABI::V6;
/// Restrictions that came after Landlock's first interface, and the interface that they came with.
const LATER_RESTRICTIONS: [(u32, &str); 3] =
    [(3, "truncating files"), (5, "commands to devices"), (6, "signals and abstract sockets of other processes")];

/// Subfolders of the data folder that the server may write to.
pub const WRITABLE_FOLDERS: [&str; 4] = ["bus", "state", "checkpoint", "dead-letters"];
/// Subfolder of the data folder with the executor's ledger and keys.
pub const EXECUTOR_FOLDER: &str = "executor";

/// Folders where container platforms mount credentials.
const CREDENTIAL_FOLDERS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// Opening files for reading, and listing folders.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// All that is done in a folder of data: neither programs nor devices, sockets or links.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});
/// Rights that a rule for a file, which is no folder, can have.
const OF_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate});

/// The files that a process may open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    /// Whether the process may open connections.
    has_network: bool,
}

impl Sandbox {
    /// The sandbox of a server: the writable subfolders of the data folder, the lake if it is on a local disk, the
    /// paths in `readable`, and what libraries read.
    pub fn server(data: &Path, lake: Option<PathBuf>, readable: &[PathBuf]) -> Self {
        let writable = WRITABLE_FOLDERS.map(|folder| data.join(folder)).into_iter().chain(lake).collect();
        Self { readable: readable.to_vec(), writable, has_network: true }
    }

    /// The sandbox of an executor: its folder, the folder of its configuration, which is read at every use, and the
    /// folders where container platforms mount credentials.
    pub fn executor(data: &Path, config: &Path) -> Self {
        let folder = std::path::absolute(config).ok().and_then(|config| config.parent().map(Path::to_owned));
        let writable = [data.join(EXECUTOR_FOLDER)].into_iter().chain(crash::marker_folder()).collect();
        let readable = folder.into_iter().chain(CREDENTIAL_FOLDERS.map(PathBuf::from)).collect();
        Self { readable, writable, has_network: true }
    }

    /// Allows to write to other folders, too.
    #[must_use]
    pub fn with_writable<'a>(mut self, folders: impl Iterator<Item = &'a Path>) -> Self {
        self.writable.extend(folders.map(Path::to_owned));
        self
    }

    /// The sandbox of a query worker: it reads the lake's folder, or, if the lake is on an object store, has the
    /// network.
    pub fn query_worker(lake: Option<PathBuf>) -> Self {
        let has_network = lake.is_none();
        Self { readable: lake.into_iter().collect(), writable: Vec::new(), has_network }
    }

    /// Returns the path of this sandbox, or of the system files that every sandbox contains, through which a process in
    /// it could open `path`, or something in it.
    pub fn exposes(&self, path: &Path) -> Option<PathBuf> {
        let path = resolve(path);
        let overlaps = |allowed: &PathBuf| {
            let allowed = resolve(allowed);
            path.starts_with(&allowed) || allowed.starts_with(&path)
        };
        self.readable.iter().chain(&self.writable).cloned().chain(system_paths::readable()).find(overlaps)
    }

    /// Restricts the calling thread, and all threads it starts. Call before starting other threads. Returns what the
    /// kernel enforces, and logs what it does not.
    pub fn enter(&self) -> Confinement {
        let mut confinement = Confinement::default();
        let mut missing = Vec::new();
        if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            missing.push("threads that were started before".to_owned());
        }
        match self.restrict() {
            Ok(status) => report(&status, &mut confinement, &mut missing),
            Err(error) => missing.push(format!("files: Landlock: {error}")),
        }
        match system_calls::refuse(self.has_network) {
            Ok(()) => confinement.seccomp = true,
            Err(error) => missing.push(format!("system calls: seccomp: {error}")),
        }
        confinement.no_new_privs = nix::sys::prctl::get_no_new_privs().unwrap_or(false);
        if !missing.is_empty() {
            tracing::warn!(?missing, "this kernel does not enforce the whole sandbox");
        }
        confinement.missing = missing;
        confinement
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK_ABI))?;
        if !self.has_network {
            ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK_ABI))?;
        }
        let mut ruleset = ruleset.scope(Scope::from_all(LANDLOCK_ABI))?.create()?;
        let system = system_paths::readable();
        let readable = system.iter().chain(&self.readable).map(|path| (path, READ));
        for (path, access) in readable.chain(self.writable.iter().map(|path| (path, WRITE))) {
            // Missing paths need no rule.
            if let Ok(descriptor) = PathFd::new(path) {
                let access = if path.is_dir() { access } else { access & OF_FILES };
                ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access))?;
            }
        }
        ruleset.restrict_self()
    }
}

fn report(status: &RestrictionStatus, confinement: &mut Confinement, missing: &mut Vec<String>) {
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        missing.push("files: Landlock: the kernel does not have it, or it is switched off".to_owned());
        return;
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        missing.push("files: Landlock: not enforced".to_owned());
        return;
    }
    let abi = effective_abi as u32;
    confinement.landlock_abi = abi;
    missing.extend(missing_restrictions(abi));
}

/// Names the restrictions that a kernel with this interface of Landlock does not have.
fn missing_restrictions(abi: u32) -> impl Iterator<Item = String> {
    let later = LATER_RESTRICTIONS.iter().filter(move |(since, _)| *since > abi);
    later.map(move |(since, what)| format!("{what}: needs Landlock ABI {since}, the kernel has {abi}"))
}

/// Returns a path without symbolic links; the end of a path that does not exist is kept.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in absolute.ancestors() {
        if let (Ok(resolved), Ok(rest)) = (existing.canonicalize(), absolute.strip_prefix(existing)) {
            return if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) };
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_in_folders_of_the_sandbox_are_exposed_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["data/bus", "data/executor", "runbooks/private", "tables", "etc"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        symlink(path("runbooks"), path("link")).unwrap();
        let exposed = |lake: &str, readable: &str, file: &str| {
            let sandbox = Sandbox::server(&path("data"), Some(path(lake)), &[path(readable)]);
            sandbox.exposes(&path(file)).map(|found| found.strip_prefix(dir.path()).unwrap().display().to_string())
        };
        for (lake, readable, file, expected) in [
            ("tables", "runbooks", "etc/executor.yaml", None),
            ("tables", "runbooks", "data/executor", None),
            ("tables", "runbooks", "runbooks-of-others", None),
            ("tables", "runbooks", "data/bus/executor.yaml", Some("data/bus")),
            ("tables", "runbooks", "tables/executor.yaml", Some("tables")),
            ("tables", "runbooks", "link/private/executor.yaml", Some("runbooks")),
            ("tables", "link", "runbooks/private/executor.yaml", Some("link")),
            ("tables", "etc/executor.yaml", "etc/executor.yaml", Some("etc/executor.yaml")),
            ("data", "runbooks", "data/executor", Some("data")),
            ("data/executor/tables", "runbooks", "data/executor", Some("data/executor/tables")),
            ("tables", "", "etc/executor.yaml", Some("")),
            ("tables", "runbooks/../etc", "etc/executor.yaml", Some("runbooks/../etc")),
        ] {
            assert_eq!(exposed(lake, readable, file).as_deref(), expected, "{lake} {readable} {file}");
        }
    }

    /// Regression: an executor's file among the certificates was accepted, and readable in the sandbox.
    #[test]
    fn files_among_the_system_files_that_libraries_read_are_exposed() {
        let sandbox = Sandbox::server(Path::new("/nonexistent/data"), None, &[]);
        let exposed = |file: &str| sandbox.exposes(Path::new(file));
        for folder in ["/etc/ssl/certs", "/usr/local/share/ca-certificates", "/usr/share/zoneinfo", "/sys/fs/cgroup"] {
            assert_eq!(exposed(&format!("{folder}/executor.yaml")), Some(PathBuf::from(folder)));
        }
        let program = std::env::current_exe().unwrap();
        assert_eq!(sandbox.exposes(&program), Some(program));
        assert_eq!(
            ["/etc/executor.yaml", "/etc/ssl/executor.yaml", "/root/executor.yaml"].map(exposed),
            [None, None, None]
        );
    }

    #[test]
    fn what_an_older_kernel_does_not_enforce_is_named() {
        assert_eq!([1, 3, 5, 6, 9].map(|abi| missing_restrictions(abi).count()), [3, 2, 1, 0, 0]);
        let expected = "signals and abstract sockets of other processes: needs Landlock ABI 6, the kernel has 5";
        assert_eq!(missing_restrictions(5).collect::<Vec<_>>(), [expected]);
    }
}
