//! Fields of a target of `terraform`, and arguments of its operations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::programs::check_program;
use crate::{Secret, SettingError};

/// Fields of a target of `terraform`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Folder of the configuration, in which `terraform init` was run.
    pub folder: PathBuf,
    /// Absolute path of `terraform` or `tofu`.
    pub program: PathBuf,
    /// Workspace. Default: the one that is selected in the folder.
    #[serde(default)]
    pub workspace: Option<String>,
    /// Variables that a call may set. Default: none.
    #[serde(default)]
    pub variables: Vec<String>,
    /// Most resources that a plan may destroy or replace; a plan with more is refused. Default 0.
    #[serde(default)]
    pub max_removals: u32,
    /// Environment, such as the credentials of providers and of the backend.
    #[serde(default)]
    pub environment: BTreeMap<String, Secret>,
    /// Terraform's CLI configuration file. Default: none.
    #[serde(default)]
    pub cli_config: Option<PathBuf>,
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        check_program(&self.program).map_err(|reason| SettingError::new("program", reason))?;
        for (field, path) in [("folder", Some(&self.folder)), ("cli-config", self.cli_config.as_ref())] {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(SettingError::new(field, "it must be an absolute path"));
            }
        }
        self.environment.iter().try_for_each(|(name, value)| value.check(&format!("environment.{name}")))
    }
}

/// Arguments of `plan` and `apply`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Values of variables that the target allows to be set.
    #[serde(default)]
    #[schemars(with = "VariableMap", extend("maxProperties" = 20))]
    pub variables: BTreeMap<String, String>,
    /// Addresses of resources to replace, although they have not changed.
    #[serde(default)]
    #[schemars(length(max = 10), inner(length(max = 300), regex(pattern = ADDRESS)))]
    pub replace: Vec<String>,
    /// Addresses of the only resources and modules to change. Default: all.
    #[serde(default)]
    #[schemars(length(max = 10), inner(length(max = 300), regex(pattern = ADDRESS)))]
    pub targets: Vec<String>,
}

/// Pattern of the address of a resource or module.
const ADDRESS: &str =
    r#"^[A-Za-z_][A-Za-z0-9_-]*(\[("[^"\\]*"|[0-9]+)\])?(\.[A-Za-z_][A-Za-z0-9_-]*(\[("[^"\\]*"|[0-9]+)\])?)+$"#;

/// Schema of variables.
type VariableMap = BTreeMap<String, VariableValue>;

/// Schema of the value of a variable.
#[derive(JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct VariableValue(#[schemars(length(max = 2000))] String);

impl Arguments {
    /// Returns the options of `terraform plan`. Every value is part of its option's word.
    pub(super) fn options(&self) -> Vec<String> {
        let variables = self.variables.iter().map(|(name, value)| format!("-var={name}={value}"));
        let replace = self.replace.iter().map(|address| format!("-replace={address}"));
        let targets = self.targets.iter().map(|address| format!("-target={address}"));
        variables.chain(replace).chain(targets).collect()
    }

    pub(super) fn without_replacements(&self) -> Self {
        Self { replace: Vec::new(), ..self.clone() }
    }
}
