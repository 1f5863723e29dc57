//! What of the knowledge base can be configured.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where runbooks come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// A folder of Markdown runbooks, beside the built-in ones. Default: none. Since 0.1.
    pub runbooks: Option<PathBuf>,
}
