//! The keys of issuers whose ID tokens prove approvals, read over HTTP and kept for minutes.
//!
//! Problem: keys change, and an issuer may be slow. Model: they are read before anything is locked, when they are old
//! or a token names another one. Guarantee: an issuer that does not respond delays only approvals by its tokens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use wardroom_domain::Timestamp;
use wardroom_domain::approval_proof::SignedProof;
use wardroom_domain::executor::RefusalCode;
use wardroom_identity::jwk_set::JwkSet;
use wardroom_identity::jws;
use wardroom_identity::oidc_client::IssuerClient;
use wardroom_identity::{KEYS_LIFETIME, KEYS_PAUSE};

use crate::config::ExecutorConfig;
use crate::config::browser_approvers::ApprovalIssuer;
use crate::refusal::Refusal;

/// Keys by issuer, and when they were read.
#[derive(Debug, Default)]
pub(crate) struct IssuerKeys {
    read: Mutex<HashMap<String, (JwkSet, Timestamp)>>,
}

impl IssuerKeys {
    /// Returns the issuer of the ID token that a proof has, with its keys. Other proofs have none.
    pub(crate) fn keys_for(
        &self,
        config: &ExecutorConfig,
        proof: &str,
        now: Timestamp,
    ) -> Result<Option<(ApprovalIssuer, JwkSet)>, Refusal> {
        let Some(token) = SignedProof::parse(proof).and_then(Result::ok).and_then(|proof| proof.id_token) else {
            return Ok(None);
        };
        let named = jws::issuer(&token).map_err(|error| (RefusalCode::InvalidProof, error.to_string()))?;
        // An issuer that is not configured is never asked.
        let Some(issuer) = config.browser.issuer(&named).cloned() else { return Ok(None) };
        let key_id = jws::key_id(&token).map_err(|error| (RefusalCode::InvalidProof, error.to_string()))?;
        let keys = match self.kept(&issuer.issuer, key_id.as_deref(), now) {
            Some(keys) => keys,
            None => self.fetch(&issuer, now)?,
        };
        Ok(Some((issuer, keys)))
    }

    /// Returns the kept keys, unless they are old, or have not the one that is asked for.
    fn kept(&self, issuer: &str, key_id: Option<&str>, now: Timestamp) -> Option<JwkSet> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, at) = read.get(issuer)?;
        let has_key = key_id.is_none_or(|id| keys.has(id));
        let lifetime = if has_key { KEYS_LIFETIME } else { KEYS_PAUSE };
        (at.plus(lifetime) > now).then(|| keys.clone())
    }

    fn fetch(&self, issuer: &ApprovalIssuer, now: Timestamp) -> Result<JwkSet, Refusal> {
        let client = IssuerClient::new(issuer.ca_file.as_deref());
        let keys = client
            .and_then(|client| client.keys_of(&issuer.issuer, None))
            .map_err(|error| (RefusalCode::Unavailable, format!("the keys of the issuer cannot be read: {error}")))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(issuer.issuer.clone(), (keys.clone(), now));
        Ok(keys)
    }
}
