//! Configuration of the knowledge base.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the knowledge base.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Folder of Markdown runbooks, in addition to the built-in ones. Default: none. Since 0.1.
    pub runbooks: Option<PathBuf>,
}
