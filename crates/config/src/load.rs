//! Loads the configuration from defaults, the YAML file and `WARDROOM_…` environment variables, in ascending priority.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Serialized};

use crate::config::Config;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("configuration {}: {error}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The operating system's error.
        error: std::io::Error,
    },
    /// The file is not YAML.
    #[error("configuration {}: {reason}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// Fields are unknown, have values of another type or that cannot work, or name folders that are missing: one line
    /// for each, with field, reason and remedy.
    #[error("configuration: {}", .0.join("\n  "))]
    Invalid(Vec<String>),
}

/// Loads the configuration.
///
/// # Errors
/// See [`LoadError`].
pub fn load(file: Option<&Path>) -> Result<Config, LoadError> {
    let config = read(file)?;
    config.check_values().map_err(LoadError::Invalid)?;
    Ok(config)
}

/// Loads the configuration, and checks that its folders exist, or can be created.
///
/// # Errors
/// See [`LoadError`].
pub fn load_with_folders(file: Option<&Path>) -> Result<Config, LoadError> {
    let config = read(file)?;
    let checks = [config.check_values(), config.check_folders()];
    let problems: Vec<String> = checks.into_iter().filter_map(Result::err).flatten().collect();
    if problems.is_empty() { Ok(config) } else { Err(LoadError::Invalid(problems)) }
}

/// Returns the JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

fn read(file: Option<&Path>) -> Result<Config, LoadError> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|error| LoadError::File { file: file.to_owned(), error })?;
        let value: serde_json::Value = if text.trim().is_empty() {
            serde_json::json!({})
        } else {
            let syntax = |reason: String| LoadError::Syntax { file: file.to_owned(), reason };
            serde_saphyr::from_str(&text).map_err(|error| syntax(error.to_string()))?
        };
        figment = figment.merge(Serialized::globals(value));
    }
    // WARDROOM_DETECT__Z_WARNING=3 sets detect.z-warning. Names without `__`, such as WARDROOM_URL, are ignored.
    let environment = Env::prefixed("WARDROOM_")
        .filter(|name| name.as_str().contains("__"))
        .map(|name| name.as_str().replace("__", ".").replace('_', "-").into())
        .lowercase(true);
    figment.merge(environment).extract().map_err(|error| LoadError::Invalid(describe(error)))
}

/// Describes errors by field, source and reason. Their own text would name the line of source code that added the
/// value.
fn describe(error: figment::Error) -> Vec<String> {
    let one = |error: figment::Error| {
        let is_environment = error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        let source = if is_environment { ", from the environment" } else { "" };
        match error.path.join(".") {
            field if field.is_empty() => format!("{}{source}", error.kind),
            field => format!("field {field}{source}: {}", error.kind),
        }
    };
    error.into_iter().map(one).collect()
}
