//! Static bearer tokens, stored as hashes, each with tenant, principal and access role (ADR 011).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};

use crate::problem::Problem;

/// Whether requests need a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Every listener requires a credential.
    On,
    /// No credential is required; allowed on loopback only.
    Off,
}

/// A token in the table.
#[derive(Clone, Debug)]
pub struct KnownToken {
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// The identity it proves.
    pub identity: Identity,
    /// When it expires, exclusive; never if `None`.
    pub expires_at: Option<Timestamp>,
}

/// The current tokens, refreshed from the store by the role that owns it; cheap to clone.
///
/// Only a token known to be invalid gets 401, because senders drop data on 4xx. While the token store cannot be read,
/// requests get 503.
#[derive(Clone, Debug)]
pub struct TokenTable {
    mode: AuthMode,
    tokens: Arc<RwLock<Option<HashMap<String, KnownToken>>>>,
}

impl TokenTable {
    /// Creates an unloaded table: requests get 503 until [`TokenTable::replace`].
    pub fn new(mode: AuthMode) -> Self {
        Self { mode, tokens: Arc::default() }
    }

    /// Returns whether requests need a credential.
    pub const fn mode(&self) -> AuthMode {
        self.mode
    }

    /// Replaces all tokens; `None` means that the store cannot be read.
    pub fn replace(&self, tokens: Option<Vec<KnownToken>>) {
        let table = tokens.map(|tokens| tokens.into_iter().map(|token| (token.sha256.clone(), token)).collect());
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Authenticates a request by its `Authorization` header: `Bearer TOKEN`, or `Basic` with the token as password
    /// (browsers).
    ///
    /// # Errors
    /// Returns 401 for a missing or invalid token, 503 while the token store cannot be read.
    pub fn authenticate(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, Problem> {
        if self.mode == AuthMode::Off {
            let tenant = TenantId::main();
            return Ok(Identity { tenant, principal: Principal::anonymous(), role: AccessRole::Admin });
        }
        let secret = extract_secret(headers).ok_or_else(|| {
            let detail = "no credential; send `Authorization: Bearer TOKEN` (create one with `wardroom token create`)";
            Problem::new(StatusCode::UNAUTHORIZED, "no_credential", detail)
        })?;
        self.authenticate_secret(&secret, now)
    }

    /// Authenticates a bearer token.
    ///
    /// # Errors
    /// As for [`TokenTable::authenticate`].
    pub fn authenticate_secret(&self, secret: &str, now: Timestamp) -> Result<Identity, Problem> {
        let digest = sha256_hex(secret.as_bytes());
        let guard = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = guard.as_ref() else {
            return Err(Problem::unavailable("token_store_unavailable", "the token store cannot be read; retry"));
        };
        match tokens.get(&digest) {
            Some(token) if !bool::from(token.sha256.as_bytes().ct_eq(digest.as_bytes())) => Err(bad_token()),
            Some(token) if token.expires_at.is_some_and(|end| end <= now) => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "token_expired", "the token has expired; create a new one"))
            }
            Some(token) => Ok(token.identity.clone()),
            None => Err(bad_token()),
        }
    }
}

/// Compares two secrets in constant time.
pub fn secrets_match(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// A rejected request, for the audit log.
#[derive(Clone, Debug)]
pub struct RejectedRequest {
    /// The caller, if the credential was valid.
    pub identity: Option<Identity>,
    /// The path pattern of the matched route.
    pub path: String,
    /// The problem code.
    pub code: &'static str,
}

/// Called for every rejected request.
pub type RejectionHook = Arc<dyn Fn(RejectedRequest) + Send + Sync>;

/// Generates a random secret (256 bits, prefixed with `wr_` for secret scanners) and returns it with its SHA-256.
pub fn generate_token() -> (String, String) {
    let secret = format!("wr_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let digest = sha256_hex(secret.as_bytes());
    (secret, digest)
}

/// Returns the secret in the `Authorization` header, if there is one.
pub fn extract_secret(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

fn bad_token() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "bad_token", "the token is unknown or revoked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn accepts_only_known_tokens_that_have_not_expired() {
        let (token, sha256) = generate_token();
        let identity =
            Identity { tenant: TenantId::main(), principal: Principal::wardroom(), role: AccessRole::Viewer };
        let table = TokenTable::new(AuthMode::On);
        let now = Timestamp::from_millis(1000);
        let authenticate =
            |value: &str| table.authenticate(&headers(value), now).map_err(|problem| problem.status().as_u16());

        assert_eq!(authenticate(&format!("Bearer {token}")), Err(503), "the token table was never loaded");
        let expires_at = Some(Timestamp::from_millis(2000));
        table.replace(Some(vec![KnownToken { sha256, identity: identity.clone(), expires_at }]));
        assert_eq!(authenticate(&format!("Bearer {token}")), Ok(identity.clone()));
        assert_eq!(authenticate(&format!("Basic {}", STANDARD.encode(format!("me:{token}")))), Ok(identity));
        assert_eq!(authenticate("Bearer wr_wrong"), Err(401));
        assert_eq!(authenticate("Digest x"), Err(401));
        assert_eq!(table.authenticate(&HeaderMap::new(), now).unwrap_err().status(), 401);
        let late = Timestamp::from_millis(2000);
        assert!(table.authenticate(&headers(&format!("Bearer {token}")), late).is_err());
    }
}
