//! Configuration of the executor: targets with credentials, approvers with token hashes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{Principal, TenantId};
use wardroom_tools::Target;

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
        serde_saphyr::from_str(&text).map_err(|error| with_path(error.to_string()))
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
