//! Configuration of the executor: targets with credentials, approvers with token hashes.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::ListedApprover;
use wardroom_domain::identity::token_id;
use wardroom_domain::{Principal, TenantId};
use wardroom_tools::Target;

/// Maximum size of the file, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// The file given by `--executor-config`: a regular file of the user that runs the executor, and only its owner may
/// read it (mode 0600). Whoever can change it decides who approves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Principals that may approve plans.
    pub approvers: Vec<Approver>,
    /// Targets of tool calls.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// An approver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approver {
    /// Name in plans and in the audit log.
    pub principal: Principal,
    /// Tenant whose plans they may approve.
    pub tenant: TenantId,
    /// SHA-256 of their bearer token, in hex.
    pub token_sha256: String,
}

impl ExecutorConfig {
    /// Reads and validates the file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let with_path = |error: String| format!("{}: {error}", path.display());
        let text = read_private_file(path).map_err(with_path)?;
        let config: Self = serde_saphyr::from_str(&text).map_err(|error| with_path(error.to_string()))?;
        config.check_approvers().map_err(with_path)?;
        Ok(config)
    }

    /// Checks that each approver can be recognised by their token. A hash with anything before or after it, such as the
    /// output of `sha256sum`, would match no token.
    fn check_approvers(&self) -> Result<(), String> {
        for (index, approver) in self.approvers.iter().enumerate() {
            let field = format!("field approvers[{index}].token-sha256");
            let hash = approver.token_sha256.as_str();
            if hash.len() != SHA256_DIGITS || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                let found = format!("{field}: {} characters, which are not {SHA256_DIGITS}", hash.chars().count());
                return Err(format!(
                    "{found} hexadecimal digits; write what `printf %s TOKEN | sha256sum | cut -c1-64` prints"
                ));
            }
            let is_same = |other: &&Approver| {
                other.tenant == approver.tenant && other.token_sha256.eq_ignore_ascii_case(&approver.token_sha256)
            };
            if let Some(other) = self.approvers.iter().take(index).find(is_same) {
                let (one, two) = (&other.principal, &approver.principal);
                return Err(format!("{field}: {one} and {two} have the same token; create one for each approver"));
            }
        }
        Ok(())
    }

    /// Returns the approvers without the hashes of their tokens.
    pub(crate) fn listed(&self) -> Vec<ListedApprover> {
        let listed = |approver: &Approver| ListedApprover {
            principal: approver.principal.clone(),
            tenant: approver.tenant.clone(),
            token_id: token_id(&approver.token_sha256.to_ascii_lowercase()),
        };
        self.approvers.iter().map(listed).collect()
    }

    /// Returns the approver of a tenant with this token. Compares in constant time.
    pub(crate) fn authenticate(&self, tenant: &TenantId, token: &str) -> Option<&Principal> {
        let digest = sha256_hex(token.as_bytes());
        self.approvers
            .iter()
            .find(|approver| {
                approver.tenant == *tenant
                    && bool::from(approver.token_sha256.to_ascii_lowercase().as_bytes().ct_eq(digest.as_bytes()))
            })
            .map(|approver| &approver.principal)
    }

    /// Returns whether a principal is an approver of a tenant.
    pub(crate) fn is_approver(&self, tenant: &TenantId, principal: &Principal) -> bool {
        self.approvers.iter().any(|approver| approver.tenant == *tenant && approver.principal == *principal)
    }
}

/// Reads a file that only the user of this process can read or write. All checks are made on the opened file: the path
/// may name another one a moment later.
fn read_private_file(path: &Path) -> Result<String, String> {
    // O_NONBLOCK: opening a FIFO would wait for a writer.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| {
        let is_link = error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
        if is_link { "it is a symbolic link; give the path of the file itself".to_owned() } else { error.to_string() }
    })?;
    check_private(&file)?;
    let mut text = String::new();
    let size = file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if size as u64 > MAX_CONFIG_BYTES {
        return Err(format!("it has more than {MAX_CONFIG_BYTES} bytes"));
    }
    Ok(text)
}

fn check_private(file: &File) -> Result<(), String> {
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let user = nix::unistd::geteuid().as_raw();
    if found.uid() != user {
        let owner = found.uid();
        return Err(format!("it belongs to user {owner}, who could change the approvers; chown it to user {user}"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("mode is {:o}; it holds credentials: chmod 600 it", found.mode() & 0o777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn write(path: &Path, mode: u32) {
        std::fs::write(path, "approvers: []\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_private_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, fifo) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("fifo"));
        write(&file, 0o600);
        assert!(ExecutorConfig::load(&file).is_ok());
        let refused = |path: &Path, expected: &str| {
            let error = ExecutorConfig::load(path).unwrap_err();
            assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{error}");
        };
        symlink(&file, &link).unwrap();
        refused(&link, "symbolic link");
        refused(&dir.path().join("missing"), "No such file");
        refused(dir.path(), "not a regular file");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        refused(&fifo, "not a regular file");
        for mode in [0o640, 0o604, 0o660, 0o602, 0o610] {
            write(&file, mode);
            refused(&file, "chmod 600");
        }
        write(&file, 0o400);
        assert!(ExecutorConfig::load(&file).is_ok());
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "x".repeat(1 + MAX_CONFIG_BYTES as usize)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        refused(&file, "more than");
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return; // Only root can give a file away.
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write(&file, 0o600);
        chown(&file, Some(65_534), None).unwrap();
        let error = ExecutorConfig::load(&file).unwrap_err();
        assert!(error.contains("belongs to user 65534"), "{error}");
    }

    fn load(approvers: &[(&str, &str)]) -> Result<ExecutorConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor.yaml");
        let entry = |(principal, hash): &(&str, &str)| {
            format!("  - {{ principal: {principal}, tenant: main, token-sha256: {} }}\n", serde_json::json!(hash))
        };
        std::fs::write(&path, format!("approvers:\n{}", approvers.iter().map(entry).collect::<String>())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        ExecutorConfig::load(&path)
    }

    #[test]
    fn a_hash_that_matches_no_token_is_refused_when_the_file_is_read() {
        let hash = sha256_hex(b"token");
        assert!(load(&[("alice", &hash), ("bob", &sha256_hex(b"other").to_uppercase())]).is_ok());
        for wrong in [
            format!("{hash}  -"),
            format!("{hash}\n"),
            format!(" {hash}"),
            format!("{hash}00"),
            format!("sha256:{hash}"),
            hash.replace(|_: char| true, "g"),
            hash.chars().skip(1).collect(),
            "wr_the-token-itself".to_owned(),
            String::new(),
        ] {
            let error = load(&[("bob", &sha256_hex(b"other")), ("alice", &wrong)]).unwrap_err();
            assert!(error.contains("approvers[1].token-sha256") && error.contains("sha256sum"), "{wrong:?}: {error}");
            assert!(wrong.is_empty() || !error.contains(wrong.trim()), "{error} does not repeat what may be a secret");
        }
        let error = load(&[("alice", &hash), ("bob", &hash.to_uppercase())]).unwrap_err();
        assert!(error.contains("alice and bob have the same token"), "{error}");
    }
}
