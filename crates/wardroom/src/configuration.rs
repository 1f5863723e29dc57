//! Loads the configuration from defaults, the YAML file and `WARDROOM_…` environment variables, in ascending priority.

use std::path::Path;

use anyhow::Context;
use figment::Figment;
use figment::providers::{Env, Serialized};
use wardroom_roles::Config;

/// Loads the configuration.
///
/// # Errors
/// Returns an error that names the field if a value is invalid.
pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).with_context(|| format!("configuration {}", file.display()))?;
        let value: serde_json::Value = if text.trim().is_empty() {
            serde_json::json!({})
        } else {
            serde_saphyr::from_str(&text).with_context(|| format!("configuration {}", file.display()))?
        };
        figment = figment.merge(Serialized::globals(value));
    }
    // WARDROOM_DETECT__Z_WARNING=3 sets detect.z-warning. Names without `__`, such as WARDROOM_URL, are ignored.
    let environment = Env::prefixed("WARDROOM_")
        .filter(|name| name.as_str().contains("__"))
        .map(|name| name.as_str().replace("__", ".").replace('_', "-").into())
        .lowercase(true);
    figment.merge(environment).extract().map_err(|error| {
        let field = error.path.join(".");
        anyhow::anyhow!("configuration{}{field}: {error}", if field.is_empty() { "" } else { " field " })
    })
}

/// Returns the JSON Schema of the configuration file.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
