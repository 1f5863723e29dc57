//! OpenID Connect's ID token: who has logged in, and for which request.

use std::time::Duration;

use subtle::ConstantTimeEq;
use wardroom_domain::Timestamp;

use crate::claims::{CLOCK_SKEW, Claims};
use crate::jwk_set::JwkSet;
use crate::jws::{self, TokenError};

/// What an ID token must be.
#[derive(Clone, Copy, Debug)]
pub struct IdTokenCheck<'a> {
    /// The issuer, exactly as it writes itself.
    pub issuer: &'a str,
    /// The client's id at the issuer.
    pub client_id: &'a str,
    /// The value that the request had, so that a token of another request does not count.
    pub nonce: &'a str,
    /// Longest time since the person has authenticated, if that matters.
    pub max_age: Option<Duration>,
}

/// Verifies an ID token and returns its claims.
///
/// # Errors
/// Returns an error that names the claim, or says that the signature is not the issuer's.
pub fn verify_id_token(
    token: &str,
    keys: &JwkSet,
    check: IdTokenCheck<'_>,
    now: Timestamp,
) -> Result<Claims, TokenError> {
    let claims: Claims = jws::verify(token, keys)?;
    claims.check(check.issuer, check.client_id, now)?;
    claims.check_party(check.client_id)?;
    let refuse = |claim: &'static str, reason: &str| TokenError::Claim { claim, reason: reason.to_owned() };
    if claims.sub.as_deref().is_none_or(str::is_empty) {
        return Err(refuse("sub", "it is missing"));
    }
    let nonce = claims.nonce.as_deref().unwrap_or_default();
    if !bool::from(nonce.as_bytes().ct_eq(check.nonce.as_bytes())) {
        return Err(refuse("nonce", "the token was issued for another request"));
    }
    if let Some(max_age) = check.max_age {
        let at = claims.auth_time.ok_or_else(|| {
            refuse("auth_time", "it is missing: the issuer must say when the person has authenticated (max_age)")
        })?;
        let (now, limit) = (now.seconds_f64(), max_age.as_secs_f64() + CLOCK_SKEW.as_secs_f64());
        if now - at > limit || at > now + CLOCK_SKEW.as_secs_f64() {
            return Err(refuse("auth_time", "the person has not authenticated for this request; authenticate again"));
        }
    }
    Ok(claims)
}
