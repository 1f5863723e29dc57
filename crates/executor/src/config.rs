//! The executor's own file: targets with their credentials, approvers with their token hashes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{Principal, TenantId};
use wardroom_tools::Target;

/// The file given by `--executor-config`; nobody but its owner may read it (mode 0600).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Who may approve.
    pub approvers: Vec<Approver>,
    /// What may be acted on.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// One approver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approver {
    /// Their name in plans and audit.
    pub principal: Principal,
    /// Whose plans they may approve.
    pub tenant: TenantId,
    /// SHA-256 of their bearer token, in hex.
    pub token_sha256: String,
}

impl ExecutorConfig {
    /// Reads and checks the file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let mode = std::fs::metadata(path).map_err(|error| named(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(named(format!("mode is {:o}; it holds credentials: chmod 600 it", mode & 0o777)));
        }
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        serde_saphyr::from_str(&text).map_err(|error| named(error.to_string()))
    }

    /// Whose token this is, if it is an approver's of that tenant.
    pub(crate) fn approver(&self, tenant: &TenantId, token: &str) -> Option<&Principal> {
        let digest = sha256_hex(token.as_bytes());
        self.approvers
            .iter()
            .find(|approver| {
                approver.tenant == *tenant
                    && bool::from(approver.token_sha256.to_ascii_lowercase().as_bytes().ct_eq(digest.as_bytes()))
            })
            .map(|approver| &approver.principal)
    }

    /// Whether somebody is still an approver.
    pub(crate) fn still_approves(&self, tenant: &TenantId, principal: &Principal) -> bool {
        self.approvers.iter().any(|approver| approver.tenant == *tenant && approver.principal == *principal)
    }
}
