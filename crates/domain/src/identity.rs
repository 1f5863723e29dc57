//! The identity of a caller: tenant, principal and access role, always derived from a credential (ADR 011).

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates an id of 1 to 128 letters, digits, `_ . @ : -`.
            ///
            /// # Errors
            /// Returns the allowed characters and length if the text is invalid.
            pub fn new(text: impl Into<String>) -> Result<Self, String> {
                let text = text.into();
                let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@:-".contains(c);
                if text.is_empty() || text.len() > 128 || !text.chars().all(allowed) {
                    return Err(format!("{text:?} is not a valid name: use 1 to 128 letters, digits, _ . @ : -"));
                }
                Ok(Self(text.into()))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The owner of data: a tenant.
    TenantId
}
text_id! {
    /// An actor: a person or a sending program.
    Principal
}

impl TenantId {
    /// Returns the default tenant of a single-tenant installation.
    pub fn main() -> Self {
        Self("main".into())
    }
}

impl Principal {
    /// Returns the principal of Wardroom itself, for audit entries.
    pub fn wardroom() -> Self {
        Self("wardroom".into())
    }

    /// Returns the principal of callers while authentication is off (loopback only).
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }
}

/// The permissions of a credential. A sender may only write telemetry; each of the others includes the ones before it,
/// except `sender`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Writes telemetry, reads nothing.
    Sender,
    /// Reads.
    Viewer,
    /// Reads, approves, rejects and gives verdicts.
    Responder,
    /// Does everything that a token alone permits. As with a responder, approving also needs an entry in the executor's
    /// configuration.
    Admin,
}

impl AccessRole {
    /// All roles, in ascending order.
    pub const ALL: [Self; 4] = [Self::Sender, Self::Viewer, Self::Responder, Self::Admin];

    /// Returns the spelling in commands and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Viewer => "viewer",
            Self::Responder => "responder",
            Self::Admin => "admin",
        }
    }

    /// Parses a role.
    ///
    /// # Errors
    /// Returns the known roles if the word is not one of them.
    pub fn parse(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| format!("unknown role {word:?}: use sender, viewer, responder or admin"))
    }

    /// Returns whether the role may write telemetry.
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Sender | Self::Admin)
    }

    /// Returns whether the role may read incidents and telemetry.
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Viewer | Self::Responder | Self::Admin)
    }

    /// Returns whether the role may approve, reject and give verdicts.
    pub const fn may_respond(self) -> bool {
        matches!(self, Self::Responder | Self::Admin)
    }
}

/// Returns the public id of a token from the SHA-256 of its secret: a prefix, which reveals nothing about the secret.
pub fn token_id(sha256: &str) -> String {
    format!("tok_{}", sha256.chars().take(12).collect::<String>())
}

/// The identity proved by a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant whose data may be accessed.
    pub tenant: TenantId,
    /// The caller.
    pub principal: Principal,
    /// The permissions.
    pub role: AccessRole,
}
