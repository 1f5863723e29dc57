//! Credentials by reference.
//!
//! Problem: a credential in a configuration file is copied with it, into backups, tickets and repositories. Model: a
//! field holds a reference (`env:`, `file:`, `vault:`, `gcp-secret:`), which is resolved at every use, so a rotated
//! credential is used at once. A value without such a prefix is the credential itself, for a first try. Guarantee: a
//! credential has no `Display`; `Debug` and JSON show the reference, or the beginning of a hash; and every value that
//! was resolved is cut out of what tools return ([`Secrets::known`]).

mod credentials;
mod gcp_secret;
mod secret;
mod vault;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_respond::ToolError;

use crate::http_client::HttpClient;
use crate::target::SettingError;
use credentials::Credentials;
use secret::Reference;

pub use gcp_secret::GcpSecretsConfig;
pub(crate) use gcp_secret::machine_token;
pub use secret::{ENVIRONMENT_PREFIX, Exposed, Secret};
pub use vault::{VaultConfig, VaultLogin};

/// Largest file of a credential, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Values that are remembered, to be cut out of outputs. Rotated ones fill it slowly.
const MAX_KNOWN: usize = 4096;

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

impl Credentials for Secrets {
    fn resolve(&self, secret: &Secret) -> Result<Exposed, ToolError> {
        Self::resolve(self, secret)
    }

    fn remember(&self, value: &str) {
        Self::remember(self, value);
    }
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
