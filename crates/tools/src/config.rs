//! Targets: systems that may be acted on, with address and credential.

use schemars::JsonSchema;
use serde::Deserialize;

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

/// A target of one tool, declared in the executor's configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Target {
    /// Name of the tool.
    pub tool: String,
    /// Name in plans.
    pub name: String,
    /// Base URL of the control API.
    pub url: String,
    /// Bearer token for the control API.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Allowed operations; all if absent.
    #[serde(default)]
    pub operations: Option<Vec<String>>,
}
