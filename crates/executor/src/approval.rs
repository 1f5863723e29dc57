//! Proof of a person's decision: a signature with the approver's SSH key, verified by the executor itself.
//!
//! ```text
//! approver: statement ─► sign (key file or agent) ─► proof ─► API ─► server ─► executor
//! executor: same statement, made of the plan ─► listed key? namespace? still fresh? signature valid? ─► principal
//! ```
//!
//! Problem: the server relays every approval and parses hostile input. Model: it never holds anything that can sign;
//! the executor builds the signed statement from the plan in its hands, so that a proof of another plan, incident,
//! tenant, action or time does not verify. Guarantee: what the server has seen, however much, permits nothing new.
//! From a browser, a passkey or a provider of OpenID Connect proves the same statement; see `browser_proof`.
//! An approver who is listed with `proof: token` gives that up: their token proves approvals, and the server sees it.

pub(crate) mod agent;
pub(crate) mod allowed_signers;
pub(crate) mod browser_proof;
pub(crate) mod claim;
pub(crate) mod proof_key;
pub(crate) mod signer;
pub(crate) mod ssh_signature;

use std::time::Duration;

use ssh_key::{HashAlg, SshSig};
use wardroom_domain::approval_proof::{PROOF_NAMESPACE, ProofAction, SignedProof};
use wardroom_domain::executor::{ProofKind, RefusalCode};
use wardroom_domain::{TenantId, Timestamp, mutant};

use crate::config::ExecutorConfig;
use crate::refusal::Refusal;
use claim::MAX_CLOCK_SKEW;

pub(crate) use claim::{Claim, Proven};

/// Longest time between a signature and its use.
const MAX_PROOF_AGE: Duration = Duration::from_secs(600);
/// Maximum length of a proof, in bytes; a signature with a 16 384-bit RSA key has about 6 KiB.
const MAX_PROOF_BYTES: usize = 16 << 10;

/// Verifies a proof against the approvers of the configuration.
pub(crate) fn verify(config: &ExecutorConfig, claim: &Claim, proof: &str, now: Timestamp) -> Result<Proven, Refusal> {
    if proof.len() > MAX_PROOF_BYTES {
        return Err((RefusalCode::InvalidProof, format!("the proof has more than {MAX_PROOF_BYTES} bytes")));
    }
    match SignedProof::parse(proof) {
        Some(Ok(signed)) => {
            check_form(claim, &signed, now)?;
            match (&signed.passkey, &signed.id_token, signed.signature.is_empty()) {
                (None, None, _) => verify_signature(config, claim, signed, now),
                (Some(assertion), None, true) => browser_proof::verify_passkey(config, claim, &signed, assertion),
                (None, Some(token), true) => browser_proof::verify_id_token_proof(config, claim, &signed, token, now),
                _ => {
                    let detail = "the proof has more than one of signature, passkey and id_token";
                    Err((RefusalCode::InvalidProof, detail.to_owned()))
                }
            }
        }
        Some(Err(error)) => Err((RefusalCode::InvalidProof, format!("the proof is none: {error}"))),
        None => verify_token(config, &claim.tenant, proof),
    }
}

/// Checks what does not depend on the kind of proof: its time, and its reason.
fn check_form(claim: &Claim, proof: &SignedProof, now: Timestamp) -> Result<(), Refusal> {
    let invalid = |detail: String| (RefusalCode::InvalidProof, detail);
    if proof.break_glass.is_some() && claim.action != ProofAction::Approve {
        return Err(invalid("only an approval can be one by break-glass".to_owned()));
    }
    if proof.break_glass.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(invalid("an approval by break-glass needs a reason".to_owned()));
    }
    if proof.time.plus(MAX_PROOF_AGE) < now || proof.time > now.plus(MAX_CLOCK_SKEW) {
        let (minutes, at) = (MAX_PROOF_AGE.as_secs() / 60, proof.time);
        let detail = format!("it was signed at {at} and it is {now}: sign again, and use it within {minutes} min");
        return Err(invalid(detail));
    }
    Ok(())
}

fn verify_signature(
    config: &ExecutorConfig,
    claim: &Claim,
    proof: SignedProof,
    now: Timestamp,
) -> Result<Proven, Refusal> {
    let invalid = |detail: String| (RefusalCode::InvalidProof, detail);
    let parsed = SshSig::from_pem(&proof.signature);
    let signature = parsed.map_err(|error| invalid(format!("the signature is no SSH signature: {error}")))?;
    if !ssh_signature::is_canonical(&signature, &proof.signature) {
        let detail = "the signature's text is not the one that OpenSSH writes for it: it was changed on the way";
        return Err(invalid(detail.to_owned()));
    }
    if signature.namespace() != PROOF_NAMESPACE {
        let detail = format!("the signature was made for another purpose; its namespace must be {PROOF_NAMESPACE}");
        return Err(invalid(detail));
    }
    let key = signature.public_key();
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    let signer = config.signer(&claim.tenant, key).ok_or_else(|| {
        let detail = format!("the key {fingerprint} is not one of an approver of tenant {}", claim.tenant);
        (RefusalCode::NotAnApprover, detail)
    })?;
    signer.check_valid_at(now).map_err(|reason| (RefusalCode::NotAnApprover, reason))?;
    signer.check_valid_at(proof.time).map_err(|reason| (RefusalCode::NotAnApprover, reason))?;
    let message = claim.statement(&proof).message().map_err(invalid)?;
    if !ssh_signature::is_valid(&signature, message.as_bytes()) && !mutant::is_enabled("proof-not-bound") {
        let detail = "the signature is not one of this statement: another plan, incident, tenant, action, time, or a \
                      changed signature; read the incident again and sign its plan";
        return Err(invalid(detail.to_owned()));
    }
    let (principal, break_glass) = (signer.principal.clone(), proof.break_glass);
    Ok(Proven { principal, kind: ProofKind::Ssh, key: Some(fingerprint), break_glass })
}

fn verify_token(config: &ExecutorConfig, tenant: &TenantId, token: &str) -> Result<Proven, Refusal> {
    let principal = config.authenticate(tenant, token).cloned().ok_or_else(|| {
        let detail = "a bearer token proves nothing to the executor: sign with a key (`--key FILE`); only the token of an \
                      approver who is listed with `proof: token` counts";
        (RefusalCode::NotAnApprover, detail.to_owned())
    })?;
    Ok(Proven { principal, kind: ProofKind::Token, key: None, break_glass: None })
}

#[cfg(test)]
mod tests;
