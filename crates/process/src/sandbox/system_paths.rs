//! System files that libraries read while a process runs: nothing that is specific to this machine's services.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name resolution, certificates, time zones, randomness, this process and its limits. A symbolic link stands for what
/// it points to.
const SYSTEM_PATHS: [&str; 20] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/null",
    "/proc/self",
];
/// Limits of processors and memory.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// Variables with the certificates of certificate authorities, if they are elsewhere.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Beginning of the names of libraries that name resolution loads on demand.
const NAME_SERVICE_LIBRARY: &str = "libnss_";

/// Returns all paths. They need not exist.
pub(super) fn readable() -> Vec<PathBuf> {
    let fixed = SYSTEM_PATHS.into_iter().chain([CONTROL_GROUPS]).map(PathBuf::from);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    fixed.chain(certificates(std::env::var_os)).chain(program_files(&maps)).collect()
}

/// Returns the certificates that the environment names.
fn certificates(variable: impl Fn(&'static str) -> Option<OsString>) -> impl Iterator<Item = PathBuf> {
    CERTIFICATE_VARIABLES.into_iter().filter_map(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Returns the program and its libraries, which backtraces read, and the libraries of name resolution beside them.
fn program_files(maps: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| line.find('/').and_then(|start| line.get(start..)).map(PathBuf::from);
    let mut files: BTreeSet<PathBuf> = maps.lines().filter_map(path).filter(|file| file.is_file()).collect();
    let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent().map(Path::to_owned)).collect();
    for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(NAME_SERVICE_LIBRARY) {
            files.insert(entry.path());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_the_environment_names_are_readable() {
        let folder = |name: &str| (name == "SSL_CERT_DIR").then(|| OsString::from("/opt/certificates"));
        assert_eq!(certificates(folder).collect::<Vec<_>>(), [PathBuf::from("/opt/certificates")]);
        // An empty variable names nothing; as a path it would be the working folder.
        assert_eq!(certificates(|_| Some(OsString::new())).count(), 0);
    }

    #[test]
    fn the_program_and_its_libraries_are_found_and_nothing_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["wardroom", "libc.so.6", "libnss_dns.so.2", "executor.yaml", "libother.so"] {
            std::fs::write(path(name), "").unwrap();
        }
        let (program, library, removed) = (path("wardroom"), path("libc.so.6"), path("removed"));
        let maps = format!(
            "55d0-55d1 r--p 00000000 00:1c 262 {}\n7f00-7f01 r-xp 00000000 00:1c 9 {}\n7f02-7f03 r-xp 0 0:0 9 {}\n\
             7ffd-7ffe rw-p 00000000 00:00 0 [stack]\n7f04-7f05 rw-p 00000000 00:00 0\n",
            program.display(),
            library.display(),
            removed.display(),
        );
        let found = program_files(&maps).into_iter().collect::<Vec<_>>();
        assert_eq!(found, [library, path("libnss_dns.so.2"), program]);
        let own = program_files(&std::fs::read_to_string("/proc/self/maps").unwrap());
        assert!(own.contains(&std::env::current_exe().unwrap().canonicalize().unwrap()), "{own:?}");
    }
}
