//! Static bearer tokens: hashed, with tenant, principal and access role (decision D11).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};

use crate::Problem;

/// Whether credentials are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Every port asks.
    On,
    /// Nobody is asked; accepted on loopback only.
    Off,
}

/// A token that may be used now.
#[derive(Clone, Debug)]
pub struct KnownToken {
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// What it proves.
    pub identity: Identity,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// The tokens in force, refreshed from the store by the role that owns it; cheap to clone.
///
/// 401 is said only to a token known to be bad, because senders drop data on 4xx. While the store
/// cannot be read, an unknown token gets 503.
#[derive(Clone, Debug)]
pub struct TokenTable {
    mode: AuthMode,
    tokens: Arc<RwLock<Option<HashMap<String, KnownToken>>>>,
}

impl TokenTable {
    /// An empty table; nobody is known until [`TokenTable::replace`].
    pub fn new(mode: AuthMode) -> Self {
        Self { mode, tokens: Arc::default() }
    }

    /// Puts a fresh list into force; `None` says that the store cannot be read.
    pub fn replace(&self, tokens: Option<Vec<KnownToken>>) {
        let table = tokens.map(|tokens| tokens.into_iter().map(|token| (token.sha256.clone(), token)).collect());
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Who is asking, by the `Authorization` header: `Bearer TOKEN`, or `Basic` with the token as
    /// password (browsers).
    ///
    /// # Errors
    /// 401 or 503, see above.
    pub fn identify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, Problem> {
        if self.mode == AuthMode::Off {
            let tenant = TenantId::main();
            return Ok(Identity { tenant, principal: Principal::anonymous(), role: AccessRole::Admin });
        }
        let secret = secret(headers).ok_or_else(|| {
            let detail = "no credential; send `Authorization: Bearer TOKEN` (wardroom token create makes one)";
            Problem::new(StatusCode::UNAUTHORIZED, "no_credential", detail)
        })?;
        let digest = sha256_hex(secret.as_bytes());
        let guard = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = guard.as_ref() else {
            return Err(Problem::unavailable("token_store_unavailable", "the token store cannot be read now"));
        };
        match tokens.get(&digest) {
            Some(token) if !bool::from(token.sha256.as_bytes().ct_eq(digest.as_bytes())) => Err(bad_token()),
            Some(token) if token.expires_at.is_some_and(|end| end <= now) => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "token_expired", "this token has expired; create a new one"))
            }
            Some(token) => Ok(token.identity.clone()),
            None => Err(bad_token()),
        }
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// What was refused, for the audit book.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Who, if a credential proved it.
    pub identity: Option<Identity>,
    /// The matched route.
    pub path: String,
    /// The problem's code.
    pub code: &'static str,
}

/// Told of every refused request.
pub type RefusedHook = Arc<dyn Fn(Refused) + Send + Sync>;

/// A new random secret (256 bits, `wr_` before it so that scanners know it) and its SHA-256.
pub fn mint_token() -> (String, String) {
    let secret = format!("wr_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let digest = sha256_hex(secret.as_bytes());
    (secret, digest)
}

/// The secret in an `Authorization` header, if there is one.
pub fn secret(headers: &HeaderMap) -> Option<String> {
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
    Problem::new(StatusCode::UNAUTHORIZED, "bad_token", "this token is unknown or revoked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn only_a_known_token_in_force_is_let_in() {
        let (token, sha256) = mint_token();
        let identity =
            Identity { tenant: TenantId::main(), principal: Principal::wardroom(), role: AccessRole::Viewer };
        let table = TokenTable::new(AuthMode::On);
        let now = Timestamp::from_millis(1000);
        let ask = |value: &str| table.identify(&headers(value), now).map_err(|problem| problem.status().as_u16());

        assert_eq!(ask(&format!("Bearer {token}")), Err(503), "the store was never read");
        let expires_at = Some(Timestamp::from_millis(2000));
        table.replace(Some(vec![KnownToken { sha256, identity: identity.clone(), expires_at }]));
        assert_eq!(ask(&format!("Bearer {token}")), Ok(identity.clone()));
        assert_eq!(ask(&format!("Basic {}", STANDARD.encode(format!("me:{token}")))), Ok(identity));
        assert_eq!(ask("Bearer wr_wrong"), Err(401));
        assert_eq!(ask("Digest x"), Err(401));
        assert_eq!(table.identify(&HeaderMap::new(), now).unwrap_err().status(), 401);
        let late = Timestamp::from_millis(2000);
        assert!(table.identify(&headers(&format!("Bearer {token}")), late).is_err());
    }
}
