//! Who may enter: the section `identity` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use wardroom_domain::TenantId;
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};

use crate::scopes::{Roles, Scope};
use crate::webauthn::RelyingParty;

/// Hours of a month: the longest session.
const MAX_SESSION_HOURS: u64 = 31 * 24;

/// Sessions, providers of logins and issuers of tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// URL under which people reach this server, such as `https://wardroom.example.com`; passkeys and OpenID Connect
    /// need it. Default: none. Since 0.2.
    pub public_url: Option<String>,
    /// Time after which a session that is not used ends, in minutes. Default 60. Since 0.2.
    pub session_idle_minutes: u64,
    /// Time after which a session ends, in hours. Default 12. Since 0.2.
    pub session_hours: u64,
    /// Providers of OpenID Connect by which people log in. Default: none. Since 0.2.
    pub providers: Vec<Provider>,
    /// Issuers of tokens of programs. Default: none. Since 0.2.
    pub machines: Vec<MachineIssuer>,
    /// Roles besides `viewer`, `responder`, `admin` and `sender`: name, and what they may do. Default: none. Since 0.2.
    pub roles: BTreeMap<String, Vec<Scope>>,
}

/// A provider of OpenID Connect.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provider {
    /// Name in URLs and on the login page: letters, digits and `-`.
    pub name: String,
    /// The issuer, exactly as it writes itself, such as `https://login.example.com/realms/ops`.
    pub issuer: String,
    /// The client's id at the provider.
    pub client_id: String,
    /// Where the client's secret is: `env:NAME` or `file:PATH`. Default: none, for a public client (PKCE is used in any
    /// case).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// Id of a client that is for approvals only, as in `browser.issuers` of the executor's file; public, with PKCE.
    /// Default: none, the provider proves no approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_client_id: Option<String>,
    /// Scopes that are asked for besides `openid`. Default `profile email`.
    #[serde(default = "default_scopes")]
    pub scopes: String,
    /// The claim that names a person. Default `sub`, which is the only one that a provider never gives to another
    /// person.
    #[serde(default = "default_principal_claim")]
    pub principal_claim: String,
    /// The claim with a person's groups. Default `groups`.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// The roles of groups: who is in several has all of them.
    #[serde(default)]
    pub roles: BTreeMap<String, String>,
    /// The role of people in none of these groups. Default: none, they may not enter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_role: Option<String>,
    /// The tenant of its people. Default `main`.
    #[serde(default = "TenantId::main")]
    pub tenant: TenantId,
    /// File with the certificates (PEM) of the authorities of the provider. Default: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// An issuer of tokens of programs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MachineIssuer {
    /// The issuer, exactly as it is in the claim `iss`.
    pub issuer: String,
    /// The audience that the tokens must have.
    pub audience: String,
    /// Where its keys are. Default: what the issuer's discovery document says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The claim with the scopes. Default `scope`.
    #[serde(default = "default_scope_claim")]
    pub scope_claim: String,
    /// The scopes that its tokens may have; others are ignored. Default `incidents:read`.
    #[serde(default = "default_machine_scopes")]
    pub scopes: Vec<Scope>,
    /// The claim that names the program. Default `sub`.
    #[serde(default = "default_principal_claim")]
    pub principal_claim: String,
    /// Text before that name, so that no program has the name of a person. Default `machine:`.
    #[serde(default = "default_principal_prefix")]
    pub principal_prefix: String,
    /// Claims that a token must have, with their values. Default: none.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// The tenant. Default `main`.
    #[serde(default = "TenantId::main")]
    pub tenant: TenantId,
    /// File with the certificates (PEM) of the authorities of the issuer. Default: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

fn default_scopes() -> String {
    "profile email".to_owned()
}

fn default_principal_claim() -> String {
    "sub".to_owned()
}

fn default_groups_claim() -> String {
    "groups".to_owned()
}

fn default_scope_claim() -> String {
    "scope".to_owned()
}

fn default_principal_prefix() -> String {
    "machine:".to_owned()
}

fn default_machine_scopes() -> Vec<Scope> {
    vec![Scope::IncidentsRead]
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: None,
            session_idle_minutes: 60,
            session_hours: 12,
            providers: Vec::new(),
            machines: Vec::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("identity.session-idle-minutes", self.session_idle_minutes, 1..=MAX_MINUTES);
        problems.range("identity.session-hours", self.session_hours, 1..=MAX_SESSION_HOURS);
        if let Some(url) = &self.public_url {
            let is_origin = origin_of(url).is_some();
            let detail = "it is not of the form https://NAME; http is for localhost only";
            problems.require(is_origin, "identity.public-url", detail);
        }
        let has_url = self.public_url.is_some() || self.providers.is_empty();
        problems.require(has_url, "identity.public-url", "it is missing; the providers return people to it");
        let roles = Roles::new(&self.roles);
        for (index, provider) in self.providers.iter().enumerate() {
            let field = format!("identity.providers[{index}]");
            let is_unique = self.providers.iter().filter(|other| other.name == provider.name).count() == 1;
            problems.require(is_unique, &format!("{field}.name"), "two providers have it");
            provider.check(&field, &roles, problems);
        }
        for (index, machine) in self.machines.iter().enumerate() {
            let field = format!("identity.machines[{index}]");
            problems.require(is_issuer(&machine.issuer), &format!("{field}.issuer"), ISSUER_FORM);
            problems.require(!machine.audience.is_empty(), &format!("{field}.audience"), "it is empty");
            let is_unique = self.machines.iter().filter(|other| other.issuer == machine.issuer).count() == 1;
            problems.require(is_unique, &format!("{field}.issuer"), "two entries have it");
            if let Some(url) = &machine.jwks_url {
                problems.require(is_issuer(url), &format!("{field}.jwks-url"), ISSUER_FORM);
            }
        }
    }

    /// Returns the URL below which people reach this server, without a final slash.
    pub fn base_url(&self) -> String {
        self.public_url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned()
    }

    /// Returns the roles by name.
    pub fn role_table(&self) -> Roles {
        Roles::new(&self.roles)
    }

    /// Returns the relying party of passkeys.
    pub fn relying_party(&self) -> Option<RelyingParty> {
        let origin = origin_of(self.public_url.as_deref()?)?;
        let id = Url::parse(&origin).ok()?.host_str()?.to_owned();
        Some(RelyingParty { id, origins: vec![origin] })
    }

    /// Returns whether people reach this server by TLS, as the configuration says.
    pub fn is_https(&self) -> bool {
        self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"))
    }

    /// Returns the files that the server has to read: secrets and certificates.
    pub fn files(&self) -> Vec<PathBuf> {
        let secrets = self.providers.iter().filter_map(|provider| provider.client_secret.as_ref());
        let secrets = secrets.filter_map(|reference| reference.strip_prefix("file:")).map(PathBuf::from);
        let providers = self.providers.iter().filter_map(|provider| provider.ca_file.clone());
        let machines = self.machines.iter().filter_map(|machine| machine.ca_file.clone());
        secrets.chain(providers).chain(machines).collect()
    }
}

const ISSUER_FORM: &str = "it is no URL that begins with https://; http is for localhost only";

impl Provider {
    /// Reads the client's secret, if there is one.
    ///
    /// # Errors
    /// Returns an error that names the reference if the variable is not set or the file cannot be read.
    pub fn read_secret(&self) -> Result<Option<String>, String> {
        let Some(reference) = &self.client_secret else { return Ok(None) };
        let failed = |reason: String| format!("client-secret {reference}: {reason}");
        if let Some(name) = reference.strip_prefix("env:") {
            #[expect(clippy::disallowed_methods, reason = "the configuration names the variable")]
            let value = std::env::var(name);
            return value.map(Some).map_err(|_| failed("the variable is not set for this process".to_owned()));
        }
        let path = reference.strip_prefix("file:").unwrap_or_default();
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }

    fn check(&self, field: &str, roles: &Roles, problems: &mut ConfigProblems) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let detail = "use letters, digits and -";
        let name_is_valid = !self.name.is_empty() && self.name.len() <= 64 && self.name.chars().all(is_name);
        problems.require(name_is_valid, &format!("{field}.name"), detail);
        problems.require(is_issuer(&self.issuer), &format!("{field}.issuer"), ISSUER_FORM);
        problems.require(!self.client_id.is_empty(), &format!("{field}.client-id"), "it is empty");
        let is_reference = |text: &String| {
            ["env:", "file:"].iter().any(|form| text.strip_prefix(form).is_some_and(|rest| !rest.trim().is_empty()))
        };
        let detail = "it is neither env:NAME nor file:PATH";
        problems.require(
            self.client_secret.as_ref().is_none_or(is_reference),
            &format!("{field}.client-secret"),
            detail,
        );
        let is_other = self.approval_client_id.as_ref() != Some(&self.client_id);
        let detail = "it is client-id; register a client of its own, so that no login is taken for an approval";
        problems.require(is_other, &format!("{field}.approval-client-id"), detail);
        for role in self.roles.values().chain(&self.default_role) {
            let detail = format!("there is no role {role:?}; there are {}", roles.names());
            problems.require(roles.scopes(role).is_some(), &format!("{field}.roles"), detail);
        }
        let has_roles = !self.roles.is_empty() || self.default_role.is_some();
        let detail = "no group has a role, and there is no default-role: no person may enter";
        problems.require(has_roles, &format!("{field}.roles"), detail);
    }
}

/// Returns the origin of a URL that people may use: https, or http on this machine.
pub fn origin_of(url: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let is_allowed = is_protected(&parsed) && parsed.username().is_empty() && parsed.password().is_none();
    (is_allowed && parsed.query().is_none() && parsed.fragment().is_none())
        .then(|| parsed.origin().ascii_serialization())
}

/// Returns whether a URL may be that of an issuer.
pub fn is_issuer(url: &str) -> bool {
    Url::parse(url).is_ok_and(|parsed| is_protected(&parsed) && parsed.username().is_empty())
}

fn is_protected(url: &Url) -> bool {
    let is_local = || {
        let host = url.host_str().unwrap_or_default();
        host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" || host == "[::1]"
    };
    url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && is_local())
}
