//! Targets: systems that may be acted on, with address and credential.

use schemars::JsonSchema;
use serde::Deserialize;
use wardroom_domain::TenantId;

/// A secret; `Debug` does not print it.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret, to send it.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Default of [`Target::actions_per_hour`].
const DEFAULT_ACTIONS_PER_HOUR: u32 = 30;

/// A target of one tool, declared in the executor's configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Target {
    /// Name of the tool.
    pub tool: String,
    /// Tenant that owns it: only plans for incidents of this tenant can act on it. Default `main`. Since 0.1.
    #[serde(default = "TenantId::main")]
    pub tenant: TenantId,
    /// Name in plans; unique among the tenant's targets of the tool.
    pub name: String,
    /// Base URL of the control API.
    pub url: String,
    /// Bearer token for the control API.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Allowed operations; all if absent.
    #[serde(default)]
    pub operations: Option<Vec<String>>,
    /// Maximum number of actions within an hour; more wait. Undoing an action is always possible, and counts. Default
    /// 30. Since 0.1.
    #[serde(default = "default_actions_per_hour")]
    pub actions_per_hour: u32,
}

const fn default_actions_per_hour() -> u32 {
    DEFAULT_ACTIONS_PER_HOUR
}
