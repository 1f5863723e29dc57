//! A credential, or a reference to one, as a configuration holds it.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::canonical::sha256_hex;

use crate::target::SettingError;

/// Beginning of the names of environment variables that the executor gets: it starts with no others.
pub const ENVIRONMENT_PREFIX: &str = "WARDROOM_SECRET_";
/// Digits of a credential's hash that are shown; too few to test guesses against.
const SHOWN_HASH_DIGITS: usize = 4;

/// A credential, or where it is: `env:WARDROOM_SECRET_NAME`, `file:/path`, `vault:path#field`,
/// `gcp-secret:projects/P/secrets/S/versions/latest`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(super) String);

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "credential", "description": "A credential, better as a reference: \
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
pub(super) enum Reference<'a> {
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

    pub(super) fn reference(&self) -> Result<Reference<'_>, String> {
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
                Some((path, field)) if is_vault_path(path) && !field.is_empty() => Ok(Reference::Vault { path, field }),
                _ => Err("vault: needs path#field, such as vault:secret/data/redis#password".to_owned()),
            };
        }
        if let Some(name) = text.strip_prefix("gcp-secret:") {
            let is_name = is_gcp_name(name);
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
pub struct Exposed(pub(super) String);

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

/// Whether a path names a secret and nothing else of the server.
pub(super) fn is_vault_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.@".contains(&byte))
}

/// Whether a name is that of a version of a secret.
fn is_gcp_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte))
    };
    matches!(parts.as_slice(), ["projects", project, "secrets", secret, "versions", version]
        if [project, secret, version].iter().all(|part| is_part(part)))
}
