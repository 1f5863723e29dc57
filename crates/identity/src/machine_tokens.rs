//! Signed tokens of programs: JWT access tokens with scopes (RFC 9068 in spirit), such as those of a CI system.
//!
//! Problem: a program in CI or a cluster gets a short-lived token of its platform, and a static secret is one more to
//! keep. Model: the configuration names issuers with their audience; the scopes of the token, limited to those of the
//! configuration, are what it may do. Guarantee: a request waits for nothing; a token signed with a key that is not
//! known yet gets 503 while the keys are read again, and 401 when they do not have it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use wardroom_domain::{Identity, Principal, Timestamp};

use crate::claims::Claims;
use crate::config::MachineIssuer;
use crate::jwk_set::JwkSet;
use crate::jws::{self, TokenError};
use crate::scopes::Scopes;
use crate::sessions::Caller;

/// The issuers with their keys; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MachineTokens {
    issuers: Arc<[MachineIssuer]>,
    /// The keys by issuer, and when they were read.
    keys: Arc<RwLock<HashMap<String, (JwkSet, Timestamp)>>>,
}

/// Why a signed token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineRefusal {
    /// It is not valid, with the reason.
    Invalid(String),
    /// The keys of its issuer have to be read (again) first.
    KeysNeeded(String),
}

impl MachineTokens {
    /// Creates the table of these issuers, without keys.
    pub fn new(issuers: &[MachineIssuer]) -> Self {
        Self { issuers: issuers.into(), keys: Arc::default() }
    }

    /// Returns the configured issuers.
    pub fn issuers(&self) -> &[MachineIssuer] {
        &self.issuers
    }

    /// Sets the keys of an issuer that were read just now.
    pub fn set_keys(&self, issuer: &str, keys: JwkSet, now: Timestamp) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(issuer.to_owned(), (keys, now));
    }

    /// Returns when the keys of an issuer were read.
    pub fn keys_read_at(&self, issuer: &str) -> Option<Timestamp> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(issuer).map(|(_, at)| *at)
    }

    /// Returns whom a token stands for.
    ///
    /// # Errors
    /// Returns why it does not count.
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Caller, MachineRefusal> {
        let invalid = |error: TokenError| MachineRefusal::Invalid(error.to_string());
        let iss = jws::issuer(token).map_err(invalid)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.issuer == iss).ok_or_else(|| {
            MachineRefusal::Invalid("claim iss: it is none of the issuers of identity.machines".to_owned())
        })?;
        let table = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let Some((keys, read_at)) = table.get(&iss) else { return Err(MachineRefusal::KeysNeeded(iss)) };
        let claims: Claims = match jws::verify(token, keys) {
            // They are read at most every ten seconds, whatever tokens are sent.
            Err(TokenError::UnknownKey(_)) if read_at.plus(crate::KEYS_PAUSE) <= now => {
                return Err(MachineRefusal::KeysNeeded(iss));
            }
            verified => verified.map_err(invalid)?,
        };
        claims.check(&issuer.issuer, &issuer.audience, now).map_err(invalid)?;
        issuer.caller(&claims).map_err(invalid)
    }
}

impl MachineIssuer {
    fn caller(&self, claims: &Claims) -> Result<Caller, TokenError> {
        let refuse = |claim: &'static str, reason: String| TokenError::Claim { claim, reason };
        for (name, expected) in &self.require {
            if claims.text(name) != Some(expected) {
                let reason = format!("the claim {name} of the configuration (require) is not the one of the token");
                return Err(refuse("require", reason));
            }
        }
        let name = claims.text(&self.principal_claim).ok_or_else(|| {
            refuse("principal-claim", format!("the token has no claim {} that is a text", self.principal_claim))
        })?;
        let principal = Principal::new(format!("{}{name}", self.principal_prefix)).map_err(|error| {
            refuse("principal-claim", format!("{error}; choose another claim with principal-claim"))
        })?;
        let words = claims.words(&self.scope_claim);
        let granted = Scopes::of_words(words.iter().map(String::as_str));
        let scopes = granted.and(self.scopes.iter().copied().collect());
        let identity = Identity { tenant: self.tenant.clone(), principal, role: scopes.nearest_role() };
        Ok(Caller { identity, scopes, session: None })
    }
}

#[cfg(test)]
mod tests;
