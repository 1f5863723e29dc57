//! Configuration of the executor: targets with credentials, approvers with token hashes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::ListedApprover;
use wardroom_domain::identity::token_id;
use wardroom_domain::{Principal, TenantId};
use wardroom_tools::Target;

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// The file given by `--executor-config`; only its owner may read it (mode 0600).
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
        let mode = std::fs::metadata(path).map_err(|error| with_path(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(with_path(format!("mode is {:o}; it holds credentials: chmod 600 it", mode & 0o777)));
        }
        let text = std::fs::read_to_string(path).map_err(|error| with_path(error.to_string()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
