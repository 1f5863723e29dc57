//! Signed tokens: JWS in its compact form (RFC 7515).
//!
//! Problem: a token says itself how it is to be verified. Model: what it says selects among the issuer's keys, and
//! nothing else: an algorithm with a shared secret, `none`, a key in the header and a critical extension are refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::jwk_set::JwkSet;
use crate::public_key::{Algorithm, EcdsaForm};

/// Maximum length of a token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not of the form that is expected.
    #[error("the token is none: {0}")]
    Malformed(String),
    /// The issuer's keys have none of its id; it may have a new one.
    #[error("the issuer has no key {0:?}; if it was changed just now, repeat the request in a few seconds")]
    UnknownKey(String),
    /// No key of the issuer has made the signature.
    #[error("the signature is not one of the issuer's keys")]
    WrongSignature,
    /// A claim is missing or is not the expected one.
    #[error("claim {claim}: {reason}")]
    Claim {
        /// Name of the claim.
        claim: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// Returns whether a bearer token has the form of a signed token, and not of a static one.
pub fn is_signed_token(text: &str) -> bool {
    text.starts_with("ey") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Reads the claims of a token without verifying it.
fn unverified_claims<T: DeserializeOwned>(token: &str) -> Result<T, TokenError> {
    let (signed, _) = split(token)?;
    claims_of(signed)
}

/// Returns the issuer that a token names, without verifying it: to find the keys that do.
///
/// # Errors
/// Returns an error if the token is malformed or names none.
pub fn issuer(token: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    unverified_claims(token).map(|Named { iss }| iss)
}

/// Returns the id of the key that a token names.
///
/// # Errors
/// Returns an error if the token is malformed.
pub fn key_id(token: &str) -> Result<Option<String>, TokenError> {
    let (signed, _) = split(token)?;
    Ok(header_of(signed)?.kid)
}

/// Verifies the signature of a token and returns its claims.
///
/// # Errors
/// Returns an error if the token is malformed, or no key of the issuer has signed it.
pub(crate) fn verify<T: DeserializeOwned>(token: &str, keys: &JwkSet) -> Result<T, TokenError> {
    let (signed, signature) = split(token)?;
    let header = header_of(signed)?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed("it has an extension (crit) that is not known here".to_owned()));
    }
    let algorithm = Algorithm::parse(&header.alg).ok_or_else(|| {
        TokenError::Malformed("its algorithm is not RS256, RS384, RS512, PS256, ES256, ES384 or EdDSA".to_owned())
    })?;
    if let Some(id) = header.kid.as_deref().filter(|id| !keys.has(id)) {
        return Err(TokenError::UnknownKey(id.chars().take(64).collect()));
    }
    let signature = decode(signature, "its signature")?;
    let mut candidates = keys.candidates(header.kid.as_deref(), algorithm);
    if !candidates.any(|key| key.verifies(algorithm, EcdsaForm::Fixed, signed.as_bytes(), &signature)) {
        return Err(TokenError::WrongSignature);
    }
    claims_of(signed)
}

/// Splits a token into what is signed and the signature.
fn split(token: &str) -> Result<(&str, &str), TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed(format!("it has more than {MAX_TOKEN_BYTES} bytes")));
    }
    let parts = token.rsplit_once('.').filter(|(signed, _)| signed.bytes().filter(|byte| *byte == b'.').count() == 1);
    parts.ok_or_else(|| TokenError::Malformed("it does not have three parts".to_owned()))
}

fn header_of(signed: &str) -> Result<Header, TokenError> {
    let (header, _) = signed.split_once('.').unwrap_or_default();
    parse(header, "its header")
}

fn claims_of<T: DeserializeOwned>(signed: &str) -> Result<T, TokenError> {
    let (_, claims) = signed.split_once('.').unwrap_or_default();
    parse(claims, "its claims")
}

fn parse<T: DeserializeOwned>(part: &str, name: &str) -> Result<T, TokenError> {
    // The text of a JSON error quotes values.
    let unreadable = |_| TokenError::Malformed(format!("{name} cannot be read as JSON with the expected types"));
    serde_json::from_slice(&decode(part, name)?).map_err(unreadable)
}

fn decode(part: &str, name: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed(format!("{name} is not base64url")))
}

#[cfg(test)]
mod tests;
