//! Credentials by reference.
//!
//! Problem: a credential in a configuration file is copied with it, into backups, tickets and repositories. Model: a
//! field holds a reference (`env:`, `file:`, `vault:`, `gcp-secret:`), which is resolved at every use, so a rotated
//! credential is used at once. A value without such a prefix is the credential itself, for a first try. Guarantee: a
//! credential has no `Display`; `Debug` and JSON show the reference, or the beginning of a hash; and every value that was
//! resolved is cut out of what tools return ([`Secrets::known`]).

mod gcp_secret;
mod vault;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::canonical::sha256_hex;
use wardroom_respond::ToolError;

use crate::SettingError;
use crate::http_client::HttpClient;

pub use gcp_secret::GcpSecretsConfig;
pub(crate) use gcp_secret::machine_token;
pub use vault::{VaultConfig, VaultLogin};

/// Beginning of the names of environment variables that the executor gets: it starts with no others.
pub const ENVIRONMENT_PREFIX: &str = "WARDROOM_SECRET_";
/// Digits of a credential's hash that are shown; too few to test guesses against.
const SHOWN_HASH_DIGITS: usize = 4;
/// Largest file of a credential, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Values that are remembered, to be cut out of outputs. Rotated ones fill it slowly.
const MAX_KNOWN: usize = 4096;

/// A credential, or where it is: `env:WARDROOM_SECRET_NAME`, `file:/path`, `vault:path#field`,
/// `gcp-secret:projects/P/secrets/S/versions/latest`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A credential, better as a reference: \
            env:WARDROOM_SECRET_NAME, file:/path, vault:path#field, gcp-secret:projects/P/secrets/S/versions/latest" })
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Writes what may be shown: no program reads it back.
impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// Where a credential is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reference<'a> {
    Literal(&'a str),
    Environment(&'a str),
    File(&'a str),
    Vault { path: &'a str, field: &'a str },
    GcpSecret(&'a str),
}

impl Secret {
    /// Creates a credential, or a reference to one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Checks a reference without resolving it.
    ///
    /// # Errors
    /// Returns the reason and the remedy.
    pub fn check(&self, field: &str) -> Result<(), SettingError> {
        self.reference().map(drop).map_err(|reason| SettingError::new(field, reason))
    }

    /// Returns the path of a reference to a file.
    pub fn file(&self) -> Option<&Path> {
        match self.reference() {
            Ok(Reference::File(path)) => Some(Path::new(path)),
            _ => None,
        }
    }

    fn reference(&self) -> Result<Reference<'_>, String> {
        let text = self.0.as_str();
        if let Some(name) = text.strip_prefix("env:") {
            let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            return match name.strip_prefix(ENVIRONMENT_PREFIX) {
                Some(rest) if !rest.is_empty() && is_name(rest) => Ok(Reference::Environment(name)),
                _ => Err(format!("env: must be followed by a name that begins with {ENVIRONMENT_PREFIX}")),
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            let absolute = Path::new(path).is_absolute();
            return if absolute { Ok(Reference::File(path)) } else { Err("file: needs an absolute path".to_owned()) };
        }
        if let Some(rest) = text.strip_prefix("vault:") {
            return match rest.split_once('#') {
                Some((path, field)) if vault::is_path(path) && !field.is_empty() => {
                    Ok(Reference::Vault { path, field })
                }
                _ => Err("vault: needs path#field, such as vault:secret/data/redis#password".to_owned()),
            };
        }
        if let Some(name) = text.strip_prefix("gcp-secret:") {
            let is_name = gcp_secret::is_name(name);
            let reason = "gcp-secret: needs projects/PROJECT/secrets/NAME/versions/VERSION";
            return if is_name { Ok(Reference::GcpSecret(name)) } else { Err(reason.to_owned()) };
        }
        Ok(Reference::Literal(text))
    }

    /// Returns what may be shown: the reference, or the beginning of the value's hash, which tells whether it changed.
    pub fn shown(&self) -> String {
        match self.reference() {
            Ok(Reference::Literal(value)) => {
                let start: String = sha256_hex(value.as_bytes()).chars().take(SHOWN_HASH_DIGITS).collect();
                format!("[redacted, sha256 {start}…]")
            }
            Ok(_) => self.0.clone(),
            Err(_) => "[not valid]".to_owned(),
        }
    }
}

/// A resolved credential, to be sent and not kept. It prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Exposed(String);

impl Exposed {
    /// Returns the credential.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Exposed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where references are resolved; part of the executor's configuration.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SecretsConfig {
    /// HashiCorp Vault or OpenBao, for `vault:`. Since 0.1.
    #[serde(default)]
    pub vault: Option<VaultConfig>,
    /// Google Secret Manager, for `gcp-secret:`. Since 0.1.
    #[serde(default)]
    pub gcp: Option<GcpSecretsConfig>,
}

impl SecretsConfig {
    /// Checks addresses and references.
    ///
    /// # Errors
    /// Returns field and reason.
    pub fn check(&self) -> Result<(), SettingError> {
        self.vault.as_ref().map_or(Ok(()), VaultConfig::check)?;
        self.gcp.as_ref().map_or(Ok(()), GcpSecretsConfig::check)
    }
}

/// Resolves references and remembers the values. Cloning is cheap; clones share what they remember.
#[derive(Clone, Debug)]
pub struct Secrets {
    config: SecretsConfig,
    http: HttpClient,
    known: Arc<Mutex<Known>>,
}

/// Values that were resolved.
#[derive(Default)]
struct Known(BTreeSet<String>);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values", self.0.len())
    }
}

impl Secrets {
    /// Creates the resolver of a configuration.
    pub fn new(config: SecretsConfig, http: HttpClient) -> Self {
        Self { config, http, known: Arc::default() }
    }

    /// Resolves a reference.
    ///
    /// # Errors
    /// Returns an error that names the reference and the reason: [`ToolError::Invalid`] if the configuration is wrong,
    /// [`ToolError::Unavailable`] if the value cannot be had at the moment.
    pub fn resolve(&self, secret: &Secret) -> Result<Exposed, ToolError> {
        let value = match secret.reference().map_err(ToolError::Invalid)? {
            Reference::Literal(value) => value.to_owned(),
            Reference::Environment(name) => environment(name)?,
            Reference::File(path) => read_file(path)?,
            Reference::Vault { path, field } => {
                let missing = || ToolError::Invalid("vault: needs the section secrets.vault in the file".to_owned());
                self.config.vault.as_ref().ok_or_else(missing)?.read(self, &self.http, path, field)?
            }
            Reference::GcpSecret(name) => {
                let config = self.config.gcp.clone().unwrap_or_default();
                config.read(self, &self.http, name)?
            }
        };
        if value.is_empty() {
            return Err(ToolError::Invalid(format!("the credential {} is empty", secret.shown())));
        }
        self.remember(&value);
        Ok(Exposed(value))
    }

    /// Remembers a value to be cut out of outputs.
    pub fn remember(&self, value: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.len() < MAX_KNOWN {
            known.0.insert(value.to_owned());
        }
    }

    /// Returns the values that were resolved, the longest first.
    pub fn known(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values: Vec<String> = known.0.iter().cloned().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values
    }
}

#[expect(clippy::disallowed_methods, reason = "a credential by reference is read at every use")]
fn environment(name: &str) -> Result<String, ToolError> {
    std::env::var(name).map_err(|_| {
        ToolError::Invalid(format!("the environment variable {name} is not set for `wardroom serve`, or is not text"))
    })
}

fn read_file(path: &str) -> Result<String, ToolError> {
    let unreadable = |error: std::io::Error| {
        let remedy = "it must lie in the folder of the executor's file or below, or in /run/secrets";
        ToolError::Unavailable(format!("the credential file {path} cannot be read: {error}; {remedy}"))
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE_BYTES {
        return Err(ToolError::Invalid(format!("the credential file {path} is larger than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    // Editors and `echo` end a file with a line break, which is part of no credential.
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::new(SecretsConfig::default(), HttpClient::new())
    }

    #[test]
    fn nothing_prints_a_credential() {
        let (secret, secrets) = (Secret::new("CANARY-literal"), secrets());
        let exposed = secrets.resolve(&secret).unwrap();
        assert_eq!(exposed.as_str(), "CANARY-literal");
        let shown = format!("{secret:?} {exposed:?} {secrets:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(shown.contains("sha256"), "a change can be seen: {shown}");
        assert_eq!(secrets.known(), ["CANARY-literal"]);
        let reference = Secret::new("vault:secret/data/a#b");
        assert_eq!(reference.shown(), "vault:secret/data/a#b", "a reference is no credential");
    }

    #[test]
    fn references_that_cannot_work_are_refused_when_the_file_is_read() {
        for (text, reason) in [
            ("env:HOME", "WARDROOM_SECRET_"),
            ("env:WARDROOM_SECRET_", "WARDROOM_SECRET_"),
            ("env:WARDROOM_SECRET_A B", "WARDROOM_SECRET_"),
            ("file:token", "absolute"),
            ("vault:secret/data/a", "path#field"),
            ("vault:#a", "path#field"),
            ("vault:/secret/../sys/raw#a", "path#field"),
            ("vault:secret/data/a?x#a", "path#field"),
            ("gcp-secret:a", "projects/"),
            ("gcp-secret:projects/p/secrets/../versions/1", "projects/"),
        ] {
            let error = Secret::new(text).check("token").unwrap_err();
            assert!(error.field == "token" && error.reason.contains(reason), "{text}: {error}");
        }
        for text in [
            "plain",
            "env:WARDROOM_SECRET_A1",
            "file:/run/secrets/a",
            "gcp-secret:projects/p/secrets/s/versions/latest",
        ] {
            assert_eq!(Secret::new(text).check("token"), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_at_every_use_without_its_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::new(format!("file:{}", path.display()));
        let secrets = secrets();
        assert!(matches!(secrets.resolve(&secret), Err(ToolError::Unavailable(_))), "not there yet");
        for (content, expected) in [("one\n", "one"), ("two\r\n", "two"), ("three", "three"), ("a\nb\n", "a\nb")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secrets.resolve(&secret).unwrap().as_str(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secrets.resolve(&secret), Err(ToolError::Invalid(_))), "an empty credential is a mistake");
        assert_eq!(secrets.known().len(), 4, "rotated values are still cut out of outputs");
    }
}
