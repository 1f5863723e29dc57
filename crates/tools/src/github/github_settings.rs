//! A target of the tool: one repository.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http_client::check_url;
use crate::{Secret, SettingError};

/// A repository of GitHub, as the executor's configuration declares it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct GithubSettings {
    /// Base URL of the API. Default `https://api.github.com`.
    #[serde(default = "default_url")]
    pub(super) url: String,
    /// Repository, as `owner/name`.
    pub(super) repository: String,
    /// Token: a fine-grained one for this repository, or that of an app's installation.
    pub(super) token: Secret,
    /// Branch that `revert` works on. Default `main`.
    #[serde(default = "default_branch")]
    pub(super) branch: String,
    /// File of the workflow that reverts a commit. It takes the inputs `commit` and `wardroom_key` and has `run-name:
    /// revert ${{ inputs.commit }} (${{ inputs.wardroom_key }})`. Without it there is no `revert`.
    #[serde(default)]
    pub(super) revert_workflow: Option<String>,
}

fn default_url() -> String {
    "https://api.github.com".to_owned()
}

fn default_branch() -> String {
    "main".to_owned()
}

impl GithubSettings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        check_url(&self.url).map_err(|reason| SettingError::new("url", reason))?;
        let is_part =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        let parts: Vec<&str> = self.repository.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_part(part) && *part != "." && *part != "..") {
            return Err(SettingError::new("repository", "it must be owner/name"));
        }
        if self.revert_workflow.as_deref().is_some_and(|workflow| !is_part(workflow)) {
            return Err(SettingError::new("revert-workflow", "it must be the name of a file in .github/workflows"));
        }
        self.token.check("token")
    }
}
