//! Who may approve from a browser: passkeys and accounts, and how the executor verifies what they prove.
//!
//! Problem: the server shows the page and relays what it proves, and may be taken over. Model: relying party, origins,
//! issuers and people stand in the executor's own file, as its approvers' SSH keys do.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::Principal;
use wardroom_identity::config::{is_issuer, origin_of};
use wardroom_identity::webauthn::{self, RelyingParty};

/// Default of [`ApprovalIssuer::max_age_seconds`].
const DEFAULT_MAX_AGE_SECONDS: u64 = 300;
/// Longest time between an authentication and its use.
const MAX_AGE_SECONDS: u64 = 600;

/// How approvals from a browser are verified.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BrowserProofs {
    /// Id of the relying party of passkeys: the domain of the pages, such as `wardroom.example.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rp_id: Option<String>,
    /// Origins of the pages, such as `https://wardroom.example.com`.
    pub origins: Vec<String>,
    /// Providers of OpenID Connect whose ID tokens prove approvals.
    pub issuers: Vec<ApprovalIssuer>,
}

/// A provider whose ID tokens prove approvals.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApprovalIssuer {
    /// The issuer, exactly as it writes itself.
    pub issuer: String,
    /// Id of the client that is for approvals only: another one than the server's for logins, so that no login is
    /// taken for an approval.
    pub client_id: String,
    /// Longest time since the approver has authenticated, in seconds. Default 300.
    #[serde(default = "default_max_age_seconds")]
    pub max_age_seconds: u64,
    /// File with the certificates (PEM) of the authorities of the provider; read when the executor starts to need it,
    /// so it is in the folder of this file. Default: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

const fn default_max_age_seconds() -> u64 {
    DEFAULT_MAX_AGE_SECONDS
}

impl BrowserProofs {
    /// Checks the values.
    ///
    /// # Errors
    /// Returns the field, the reason and a remedy.
    pub(super) fn check(&self) -> Result<(), String> {
        for (index, origin) in self.origins.iter().enumerate() {
            if origin_of(origin).as_deref() != Some(origin) {
                return Err(format!(
                    "field browser.origins[{index}]: it is no origin such as https://wardroom.example.com, without path"
                ));
            }
        }
        if self.rp_id.is_some() == self.origins.is_empty() {
            return Err("field browser: passkeys need both rp-id and origins".to_owned());
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            let field = format!("field browser.issuers[{index}]");
            if !is_issuer(&issuer.issuer) {
                return Err(format!("{field}.issuer: it is no URL that begins with https://"));
            }
            if issuer.client_id.is_empty() {
                return Err(format!("{field}.client-id: it is empty"));
            }
            if !(1..=MAX_AGE_SECONDS).contains(&issuer.max_age_seconds) {
                let found = issuer.max_age_seconds;
                return Err(format!("{field}.max-age-seconds: {found} is not in 1 to {MAX_AGE_SECONDS}"));
            }
        }
        Ok(())
    }

    /// Returns the relying party of passkeys, if they are accepted.
    pub(crate) fn relying_party(&self) -> Option<RelyingParty> {
        Some(RelyingParty { id: self.rp_id.clone()?, origins: self.origins.clone() })
    }

    /// Returns the settings of an issuer.
    pub(crate) fn issuer(&self, issuer: &str) -> Option<&ApprovalIssuer> {
        self.issuers.iter().find(|known| known.issuer == issuer)
    }
}

/// A passkey that may approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedPasskey {
    pub(crate) principal: Principal,
    /// Its id, in base64url.
    pub(crate) id: String,
    /// Its public key (COSE), in base64url.
    pub(crate) public_key: String,
}

/// An account at a provider that may approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedAccount {
    pub(crate) principal: Principal,
    pub(crate) issuer: String,
    /// Its `sub`, which a provider never gives to another person.
    pub(crate) subject: String,
}

/// Parses lines of the form `NAME CREDENTIAL-ID PUBLIC-KEY`; what follows is a comment.
///
/// # Errors
/// Returns the number of the line, the reason and a remedy.
pub(crate) fn parse_passkeys(text: &str) -> Result<Vec<ListedPasskey>, String> {
    parse_lines(text, "the line that the passkey's page shows", |principal, id, public_key| {
        webauthn::public_key(&public_key).map_err(|error| error.to_string())?;
        Ok(ListedPasskey { principal, id, public_key })
    })
}

/// Parses lines of the form `NAME ISSUER SUBJECT`; what follows is a comment.
///
/// # Errors
/// Returns the number of the line, the reason and a remedy.
pub(crate) fn parse_accounts(text: &str) -> Result<Vec<ListedAccount>, String> {
    parse_lines(text, "NAME ISSUER SUBJECT", |principal, issuer, subject| {
        if is_issuer(&issuer) {
            Ok(ListedAccount { principal, issuer, subject })
        } else {
            Err("the second word is no issuer: a URL that begins with https://".to_owned())
        }
    })
}

fn parse_lines<T>(
    text: &str,
    form: &str,
    read: impl Fn(Principal, String, String) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let parsed = match (words.next(), words.next(), words.next()) {
                (Some(name), Some(second), Some(third)) => {
                    Principal::new(name).and_then(|name| read(name, second, third))
                }
                _ => Err(format!("it has fewer than three words; write {form}")),
            };
            parsed.map_err(|reason| format!("line {number}: {reason}"))
        })
        .collect()
}
