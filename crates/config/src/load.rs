//! Loads the configuration from defaults, the YAML file and `WARDROOM_…` environment variables, in ascending priority.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::{Env, Serialized};

use crate::config::Config;

/// Longest unknown name of a field that an error repeats, in bytes.
const MAX_SHOWN_NAME: usize = 40;

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
        /// What is wrong, with line and column, without anything of the file.
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
            let options = serde_saphyr::options! { with_snippet: false };
            serde_saphyr::from_str_with_options(&text, options).map_err(|error| syntax(describe_syntax(&error)))?
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

/// Describes a YAML error by line, column and reason. Its own text quotes the lines around it, and `lake.options` may
/// have credentials there.
fn describe_syntax(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    let reason = match error.without_snippet() {
        Error::DuplicateMappingKey { .. } => "a field is there a second time; remove one",
        Error::Eof { .. } => "the file ends within a value",
        Error::MultipleDocuments { .. } => "there is a second document; remove it",
        _ => "this is not valid YAML: check the indentation (spaces, no tabs), quotes, and the space after each colon",
    };
    match error.location() {
        Some(at) => format!("line {}, column {}: {reason}", at.line(), at.column()),
        None => reason.to_owned(),
    }
}

/// Describes errors by field, source and reason. Their own text would name the line of source code that added the
/// value, and repeat the value, which may be a credential.
fn describe(error: figment::Error) -> Vec<String> {
    let one = |error: figment::Error| {
        let is_environment = error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        let source = if is_environment { ", from the environment" } else { "" };
        let field: Vec<&str> = error.path.iter().map(|segment| shown_name(segment)).collect();
        match (field.join("."), describe_kind(&error.kind)) {
            (field, reason) if field.is_empty() => format!("{reason}{source}"),
            (field, reason) => format!("field {field}{source}: {reason}"),
        }
    };
    error.into_iter().map(one).collect()
}

fn describe_kind(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) => {
            format!("{} is there; {} is expected", type_of(found), type_name(expected))
        }
        Kind::InvalidValue(_, expected) | Kind::InvalidLength(_, expected) => {
            format!("the value is not valid; {} is expected", type_name(expected))
        }
        Kind::UnknownVariant(_, known) => format!("the value is not known; use one of {}", known.join(", ")),
        Kind::UnknownField(name, known) => {
            format!("unknown field {}; the fields are {}", shown_name(name), known.join(", "))
        }
        Kind::MissingField(name) => format!("the field {name} is missing"),
        Kind::DuplicateField(name) => format!("the field {name} is there a second time; remove one"),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "the number is out of range".to_owned(),
        Kind::Message(_) | Kind::Unsupported(_) | Kind::UnsupportedKey(..) => "the value is not valid".to_owned(),
    }
}

/// Returns a name if it looks like that of a field. Without the space after a colon, a value is part of the name.
fn shown_name(name: &str) -> &str {
    let is_name = name.len() <= MAX_SHOWN_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_name { name } else { "(not a name)" }
}

/// Says what is there, without the value.
const fn type_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "a text",
        Actual::Unit | Actual::Option => "no value",
        Actual::Seq => "a list",
        Actual::Map => "a mapping",
        _ => "another value",
    }
}

/// Says the name of a type in the words of a file.
fn type_name(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "i64" | "usize" => "a whole number",
        "f32" | "f64" => "a number",
        _ if expected.starts_with("struct ") => "a mapping with fields",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a file whose secret is `s3kret`, and returns the error.
    #[track_caller]
    fn error_of(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wardroom.yaml");
        std::fs::write(&file, text).unwrap();
        let error = load(Some(&file)).unwrap_err().to_string();
        assert!(!error.contains("s3kret") && !error.contains(".rs:"), "{text}: {error}");
        error
    }

    /// Regression: the text of a YAML error quoted the lines around it, and a wrong type its value.
    #[test]
    fn no_error_repeats_a_credential() {
        let lake = |line: &str| error_of(&format!("lake:\n  uri: s3://b/t\n  options:\n    {line}\n"));
        for (line, place) in [
            ("aws_secret_access_key: s3kret\n   region: eu", "line"),
            ("aws_secret_access_key: s3kret\n\tregion: eu", "line"),
            ("aws_secret_access_key: s3kret\n    aws_secret_access_key: s3kret", "line"),
            ("aws_secret_access_key:s3kret\n    region: eu", "line"),
            ("aws_secret_access_key: \"s3kret", "line"),
            ("aws_secret_access_key: *s3kret", "line"),
            ("aws_secret_access_key: [s3kret]", "field lake.options.aws_secret_access_key: a list is there"),
            ("aws_secret_access_key:s3kret", "field lake.options"),
            ("'aws_secret_access_key:s3kret': 1", "field lake.options.(not a name): a whole number is there"),
            ("aws_secret_access_key: s3kret\n  region: eu", "unknown field region; the fields are enabled"),
            ("aws_secret_access_key: s3kret\ndetect: s3kret", "field detect: a text is there"),
            ("aws_secret_access_key: s3kret\ndetect:\n  z-warning: s3kret", "field detect.z-warning: a text is there"),
            ("aws_secret_access_key: s3kret\n---\na: s3kret", "line"),
        ] {
            let error = lake(line);
            assert!(error.contains(place), "{line}: {error}");
        }
        for url in ["ftp://user:s3kret@host/x", "http://user:s3kret@", "http://s3kret@a b/", "s3kret"] {
            let error = error_of(&format!("heartbeat:\n  url: {url}\n"));
            assert!(error.contains("field heartbeat.url: "), "{error}");
        }
        for uri in ["ftp://user:s3kret@host/tables", "s3://user:s3kret@/tables", "https://user:s3kret@host/x"] {
            let error = error_of(&format!("lake:\n  uri: {uri}\n"));
            assert!(error.contains("field lake.uri: "), "{error}");
        }
    }
}
