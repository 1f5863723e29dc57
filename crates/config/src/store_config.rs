//! Where the state is stored: the section `store`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use wardroom_domain::config_check::ConfigProblems;

use crate::secret_reference;

/// Schemes of a PostgreSQL URL.
const POSTGRES_SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// The database with tokens, incidents, effects and the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct StoreConfig {
    /// URL of a PostgreSQL database (15 or later), such as `postgres://wardroom@db.example.com/wardroom`, with options
    /// such as `?sslmode=verify-full`; without the password. Empty for SQLite in the data folder. Default: empty.
    /// Since 0.2.
    pub url: String,
    /// Where the password is: `env:NAME` or `file:PATH` (the file's first line). Default: none. Since 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// The password of the database cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("store.password {reference}: {reason}")]
pub struct PasswordError {
    /// The reference, which is no secret.
    reference: String,
    reason: String,
}

impl PasswordError {
    /// Why, and what to do.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl StoreConfig {
    /// Whether the state is in PostgreSQL.
    pub const fn is_postgres(&self) -> bool {
        !self.url.is_empty()
    }

    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        if !self.url.is_empty() {
            let parsed = Url::parse(&self.url).ok();
            let is_postgres = parsed
                .as_ref()
                .is_some_and(|url| POSTGRES_SCHEMES.contains(&url.scheme()) && url.has_host() && url.path().len() > 1);
            let detail = "it is not of the form postgres://USER@HOST:PORT/DATABASE; leave it empty for SQLite";
            problems.require(is_postgres, "store.url", detail);
            let has_password = parsed.is_some_and(|url| url.password().is_some());
            let detail = "it has a password in it; write `store.password: file:PATH` or `env:NAME` instead";
            problems.require(!has_password, "store.url", detail);
        }
        if let Some(reference) = &self.password {
            let is_reference = secret_reference::is_valid(reference);
            problems.require(is_reference, "store.password", "it is neither env:NAME nor file:PATH");
            problems.require(self.is_postgres(), "store.password", "store.url is empty; SQLite has no password");
        }
    }

    /// Returns the file with the password, if it is in one.
    pub fn password_file(&self) -> Option<PathBuf> {
        self.password.as_ref()?.strip_prefix("file:").map(PathBuf::from)
    }

    /// Reads the password.
    ///
    /// # Errors
    /// Returns an error that names the reference if the variable is not set or the file cannot be read.
    pub fn read_password(&self) -> Result<Option<String>, PasswordError> {
        let Some(reference) = &self.password else { return Ok(None) };
        let failed = |reason: String| PasswordError { reference: reference.clone(), reason };
        secret_reference::read(reference).map(Some).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_other_databases_and_with_passwords_are_refused() {
        let problems = |url: &str, password: Option<&str>| {
            let mut problems = ConfigProblems::default();
            StoreConfig { url: url.into(), password: password.map(str::to_owned) }.check(&mut problems);
            problems.into_lines()
        };
        for (url, password) in [
            ("", None),
            ("postgres://wardroom@db/wardroom", None),
            ("postgresql://wardroom@db:5433/wardroom?sslmode=require", Some("env:PASSWORD")),
            ("postgres://wardroom@[::1]/wardroom", Some("file:/etc/password")),
        ] {
            assert_eq!(problems(url, password), Vec::<String>::new(), "{url}");
        }
        for (url, password, field) in [
            ("mysql://wardroom@db/wardroom", None, "store.url"),
            ("postgres://wardroom@db", None, "store.url"),
            ("postgres:wardroom", None, "store.url"),
            ("postgres://wardroom:s3cret@db/wardroom", None, "store.url"),
            ("", Some("env:PASSWORD"), "store.password"),
            ("postgres://wardroom@db/wardroom", Some("s3cret"), "store.password"),
            ("postgres://wardroom@db/wardroom", Some("file:"), "store.password"),
        ] {
            let found = problems(url, password);
            assert!(found.len() == 1 && found[0].contains(field), "{url}: {found:?}");
            assert!(!found[0].contains("s3cret"), "{found:?}");
        }
    }

    #[test]
    fn the_password_is_the_first_line_of_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\nmore\n").unwrap();
        let reference = format!("file:{}", file.path().display());
        let config = StoreConfig { url: String::new(), password: Some(reference) };
        assert_eq!(config.read_password().unwrap().as_deref(), Some("s3cret"));
        let missing = StoreConfig { password: Some("file:/nonexistent/password".into()), ..config };
        assert!(missing.read_password().unwrap_err().to_string().contains("/nonexistent/password"));
    }
}
