//! Loads the configuration from defaults, the YAML file and `WARDROOM_…` environment variables, in ascending priority.

use std::path::Path;

use anyhow::Context;
use figment::Figment;
use figment::providers::{Env, Serialized};
use wardroom_roles::Config;

/// Loads the configuration.
///
/// # Errors
/// Returns an error that names the fields if values are invalid.
pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    let config = read(file)?;
    config.check_values().map_err(join)?;
    Ok(config)
}

/// Loads the configuration, and checks that its folders exist, or can be created.
///
/// # Errors
/// Returns an error that names the fields if values are invalid or folders are missing.
pub(crate) fn load_with_folders(file: Option<&Path>) -> anyhow::Result<Config> {
    let config = read(file)?;
    let checks = [config.check_values(), config.check_folders()];
    let problems: Vec<String> = checks.into_iter().filter_map(Result::err).flatten().collect();
    if problems.is_empty() { Ok(config) } else { Err(join(problems)) }
}

fn join(problems: Vec<String>) -> anyhow::Error {
    anyhow::anyhow!("configuration: {}", problems.join("\n  "))
}

fn read(file: Option<&Path>) -> anyhow::Result<Config> {
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
    figment.merge(environment).extract().map_err(|error| anyhow::anyhow!(describe(&error)))
}

/// Describes an error by its field, its source and its reason. Its own text would name the line of source code that
/// added the value.
fn describe(error: &figment::Error) -> String {
    let one = |error: figment::Error| {
        let field = match error.path.join(".") {
            field if field.is_empty() => String::new(),
            field => format!(" field {field}"),
        };
        let is_environment = error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        let source = if is_environment { ", from the environment" } else { "" };
        format!("configuration{field}{source}: {}", error.kind)
    };
    error.clone().into_iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Returns the JSON Schema of the configuration file.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
