//! Targets: what may be acted on, where it is, and the credential for it.

use schemars::JsonSchema;
use serde::Deserialize;

/// A text that shows itself to nobody.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One target of one tool, declared in the executor's file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Target {
    /// The tool it is for.
    pub tool: String,
    /// What plans call it.
    pub name: String,
    /// Base URL of its control API.
    pub url: String,
    /// Bearer token for it.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Operations allowed on it; all if absent.
    #[serde(default)]
    pub operations: Option<Vec<String>>,
}
