//! What a browser proves: an approver's passkey has signed the statement's hash, or their provider has authenticated
//! them for it.
//!
//! ```text
//! statement (made here, of the plan) ─► hash ─┬─► challenge of a passkey: a listed one? page? person verified?
//!                                             └─► nonce of an ID token: issuer's key? client? authenticated just now?
//! ```
//!
//! Problem: the server serves the page, and relays. Model: the executor verifies with its own list of passkeys,
//! accounts, origins and issuers; the server's session counts for nothing. Limit: the person sees what the page shows,
//! and the page comes from the server; who does not rely on it signs with an SSH key.

use std::time::Duration;

use wardroom_domain::Timestamp;
use wardroom_domain::approval_proof::{PasskeyAssertion, SignedProof};
use wardroom_domain::executor::{ProofKind, RefusalCode};
use wardroom_identity::id_token::{IdTokenCheck, verify_id_token};
use wardroom_identity::webauthn::{self, Passkey};

use super::claim::{Claim, MAX_CLOCK_SKEW, Proven};
use super::proof_key::{account_key, passkey_key};
use crate::config::ExecutorConfig;
use crate::refusal::Refusal;

/// Verifies that a listed passkey has signed the statement.
pub(super) fn verify_passkey(
    config: &ExecutorConfig,
    claim: &Claim,
    proof: &SignedProof,
    assertion: &PasskeyAssertion,
) -> Result<Proven, Refusal> {
    let party = config.browser.relying_party().ok_or_else(|| {
        let detail = "passkeys are not accepted: the executor's file has no browser.rp-id and browser.origins";
        (RefusalCode::NotAnApprover, detail.to_owned())
    })?;
    let listed = config.passkey(&claim.tenant, &assertion.id).ok_or_else(|| {
        let detail = format!("this passkey is not one of an approver of tenant {}", claim.tenant);
        (RefusalCode::NotAnApprover, detail)
    })?;
    let passkey = Passkey { id: listed.id.clone(), public_key: listed.public_key.clone(), sign_count: 0 };
    let challenge = challenge(claim, proof)?;
    webauthn::verify_assertion(assertion, &passkey, &challenge, &party).map_err(|error| {
        (RefusalCode::InvalidProof, format!("the passkey's answer is not one to this plan: {error}"))
    })?;
    Ok(Proven {
        principal: listed.principal.clone(),
        kind: ProofKind::Passkey,
        key: Some(passkey_key(&listed.id)),
        break_glass: proof.break_glass.clone(),
    })
}

/// Verifies that a listed account's owner has authenticated for the statement.
pub(super) fn verify_id_token_proof(
    config: &ExecutorConfig,
    claim: &Claim,
    proof: &SignedProof,
    token: &str,
    now: Timestamp,
) -> Result<Proven, Refusal> {
    let invalid = |reason: String| (RefusalCode::InvalidProof, format!("the ID token proves no approval: {reason}"));
    let (issuer, keys) = config.issuer_keys.as_ref().ok_or_else(|| {
        let detail = "ID tokens of this issuer are not accepted: it is not in browser.issuers of the executor's file";
        (RefusalCode::NotAnApprover, detail.to_owned())
    })?;
    let challenge = challenge(claim, proof)?;
    let check = IdTokenCheck {
        issuer: &issuer.issuer,
        client_id: &issuer.client_id,
        nonce: &challenge,
        max_age: Some(Duration::from_secs(issuer.max_age_seconds)),
    };
    let claims = verify_id_token(token, keys, check, now).map_err(|error| invalid(error.to_string()))?;
    if claims.authenticated_at().is_none_or(|at| at < proof.time.minus(MAX_CLOCK_SKEW)) {
        return Err(invalid("the person had authenticated before, and not for this plan".to_owned()));
    }
    let subject = claims.text("sub").unwrap_or_default();
    let account = config.account(&claim.tenant, &issuer.issuer, subject).ok_or_else(|| {
        let detail =
            format!("the account is not one of an approver of tenant {}; list its issuer and sub", claim.tenant);
        (RefusalCode::NotAnApprover, detail)
    })?;
    Ok(Proven {
        principal: account.principal.clone(),
        kind: ProofKind::Oidc,
        key: Some(account_key(account)),
        break_glass: proof.break_glass.clone(),
    })
}

fn challenge(claim: &Claim, proof: &SignedProof) -> Result<String, Refusal> {
    claim.statement(proof).challenge().map_err(|reason| (RefusalCode::InvalidProof, reason))
}

#[cfg(test)]
mod tests;
