//! What a caller may do: scopes, and the roles that stand for them.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::AccessRole;

/// One permission of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Read incidents and telemetry.
    #[serde(rename = "incidents:read")]
    IncidentsRead,
    /// Change incidents: acknowledge, comment, reject, rate, close.
    #[serde(rename = "incidents:write")]
    IncidentsWrite,
    /// Relay approvals to the executor, which verifies them; stop all actions.
    #[serde(rename = "actions:approve")]
    ActionsApprove,
    /// Administer: users, tokens, autonomy, settings.
    #[serde(rename = "tools:manage")]
    ToolsManage,
    /// Send telemetry.
    #[serde(rename = "telemetry:write")]
    TelemetryWrite,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] =
        [Self::IncidentsRead, Self::IncidentsWrite, Self::ActionsApprove, Self::ToolsManage, Self::TelemetryWrite];

    /// Returns the spelling in tokens and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IncidentsRead => "incidents:read",
            Self::IncidentsWrite => "incidents:write",
            Self::ActionsApprove => "actions:approve",
            Self::ToolsManage => "tools:manage",
            Self::TelemetryWrite => "telemetry:write",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl Scopes {
    /// Returns what a built-in role may do.
    pub fn of_role(role: AccessRole) -> Self {
        let scopes: &[Scope] = match role {
            AccessRole::Sender => &[Scope::TelemetryWrite],
            AccessRole::Viewer => &[Scope::IncidentsRead],
            AccessRole::Responder => &[Scope::IncidentsRead, Scope::IncidentsWrite, Scope::ActionsApprove],
            AccessRole::Admin => &Scope::ALL,
        };
        scopes.iter().copied().collect()
    }

    /// Returns the known scopes among words, such as those of a token; the others permit nothing.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |word: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        words.into_iter().filter_map(known).collect()
    }

    /// Returns whether a scope is in the set.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns what is in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns what is in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the built-in role whose name fits best: the lowest that has every scope of the set; `sender` for
    /// telemetry only.
    pub fn nearest_role(self) -> AccessRole {
        let covers = |role: &AccessRole| Self::of_role(*role).and(self) == self;
        AccessRole::ALL.into_iter().find(covers).unwrap_or(AccessRole::Admin)
    }

    /// Returns the scopes as words between spaces.
    pub fn words(self) -> String {
        let words: Vec<&str> = Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::as_str).collect();
        words.join(" ")
    }
}

/// The roles by name: the built-in ones and those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    custom: BTreeMap<String, Scopes>,
}

impl Roles {
    /// Adds the roles of the configuration to the built-in ones.
    pub fn new(custom: &BTreeMap<String, Vec<Scope>>) -> Self {
        let scopes = |(name, scopes): (&String, &Vec<Scope>)| (name.clone(), scopes.iter().copied().collect());
        Self { custom: custom.iter().map(scopes).collect() }
    }

    /// Returns what a role may do; `None` for an unknown name.
    pub fn scopes(&self, name: &str) -> Option<Scopes> {
        AccessRole::parse(name).ok().map(Scopes::of_role).or_else(|| self.custom.get(name).copied())
    }

    /// Returns the names, for an error.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = AccessRole::ALL.iter().map(|role| role.as_str()).collect();
        names.extend(self.custom.keys().map(String::as_str));
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_role_has_every_scope() {
        for role in AccessRole::ALL {
            assert_eq!(Scopes::of_role(role).nearest_role(), role);
        }
        let nearest = |words: &str| Scopes::of_words(words.split(' ')).nearest_role();
        assert_eq!(nearest("incidents:read actions:approve"), AccessRole::Responder);
        assert_eq!(nearest("tools:manage"), AccessRole::Admin);
        assert_eq!(nearest("telemetry:write incidents:read"), AccessRole::Admin);
        assert_eq!(nearest("openid profile"), AccessRole::Sender, "no scope at all: nothing is permitted");
        assert!(Scopes::of_words(["openid"]).is_empty());
    }

    #[test]
    fn custom_roles_do_not_replace_built_in_ones() {
        let custom = BTreeMap::from([
            ("admin".to_owned(), vec![Scope::IncidentsRead]),
            ("on-call".to_owned(), vec![Scope::IncidentsRead, Scope::ActionsApprove]),
        ]);
        let roles = Roles::new(&custom);
        assert_eq!(roles.scopes("admin"), Some(Scopes::of_role(AccessRole::Admin)));
        assert_eq!(roles.scopes("on-call").unwrap().words(), "incidents:read actions:approve");
        assert_eq!(roles.scopes("other"), None);
    }
}
