//! Who is asking: tenant, principal and access role, always taken from a credential (decision D11).

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
            /// Wraps a name: 1 to 128 letters, digits, `_ . @ : -`.
            ///
            /// # Errors
            /// Says what is allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, String> {
                let text = text.into();
                let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@:-".contains(c);
                if text.is_empty() || text.len() > 128 || !text.chars().all(allowed) {
                    return Err(format!("{text:?} is not a name: use 1 to 128 letters, digits, _ . @ : -"));
                }
                Ok(Self(text.into()))
            }

            /// The text.
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
    /// Whose data it is.
    TenantId
}
text_id! {
    /// Who did it: a person or a sending program.
    Principal
}

impl TenantId {
    /// The tenant of an estate that has only one.
    pub fn main() -> Self {
        Self("main".into())
    }
}

impl Principal {
    /// Wardroom itself, in audit entries.
    pub fn wardroom() -> Self {
        Self("wardroom".into())
    }

    /// Whoever calls while authentication is off (loopback only).
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }
}

/// What a credential may do. A sender may only write telemetry; the others each include the ones
/// before them, `sender` excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Writes telemetry, reads nothing.
    Sender,
    /// Reads.
    Viewer,
    /// Reads, approves, rejects, gives verdicts.
    Responder,
    /// All of it.
    Admin,
}

impl AccessRole {
    /// Every role, in order.
    pub const ALL: [Self; 4] = [Self::Sender, Self::Viewer, Self::Responder, Self::Admin];

    /// The word, as it stands in commands and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Viewer => "viewer",
            Self::Responder => "responder",
            Self::Admin => "admin",
        }
    }

    /// The role a word stands for.
    ///
    /// # Errors
    /// Lists the known ones.
    pub fn parse(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| format!("unknown role {word:?}: use sender, viewer, responder or admin"))
    }

    /// May write telemetry.
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Sender | Self::Admin)
    }

    /// May read incidents and telemetry.
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Viewer | Self::Responder | Self::Admin)
    }

    /// May approve, reject and judge.
    pub const fn may_respond(self) -> bool {
        matches!(self, Self::Responder | Self::Admin)
    }
}

/// What a credential proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose data may be touched.
    pub tenant: TenantId,
    /// Who is asking.
    pub principal: Principal,
    /// What they may do.
    pub role: AccessRole,
}
