//! A login by OpenID Connect: the code flow with PKCE.
//!
//! ```text
//! start: state, nonce, verifier ─► cookie            callback: code + state ─► cookie's state? ─► exchange
//!        └─► authorization URL (S256 challenge)                                  └─► ID token ─► person, role
//! ```
//!
//! Problem: what comes back arrives through any browser. Model: the three random values are kept in a cookie
//! of the browser that began, so any replica can end what another began, and a callback without that cookie counts for
//! nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use url::{Url, form_urlencoded};
use wardroom_domain::{Principal, Timestamp};

use crate::claims::Claims;
use crate::config::Provider;
use crate::id_token::{IdTokenCheck, verify_id_token};
use crate::jwk_set::JwkSet;
use crate::jws::TokenError;
use crate::scopes::{Roles, Scopes};
use crate::secret::random_text;

/// Longest path to which a person returns after the login.
const MAX_RETURN_CHARS: usize = 500;

/// A login that has begun, as it is kept in the browser's cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingLogin {
    /// Name of the provider.
    pub provider: String,
    /// What the callback repeats.
    pub state: String,
    /// What the ID token repeats.
    pub nonce: String,
    /// PKCE's verifier.
    pub verifier: String,
    /// The page to return to; for an approval, what is approved.
    pub return_to: String,
    /// Time of the statement of an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// Who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// The name that the provider's configured claim has.
    pub principal: Principal,
    /// What the person's groups permit.
    pub scopes: Scopes,
    /// The person's id at the provider, for the audit log.
    pub subject: String,
}

/// A person who may not enter, or a token that does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The callback does not belong to a login that this browser began.
    #[error("the login was not begun by this browser, or it took too long; begin again")]
    OtherBrowser,
    /// The token is not valid.
    #[error("the provider's ID token is not valid: {0}")]
    Token(#[from] TokenError),
    /// The claim that names the person cannot be used.
    #[error("{0}")]
    Name(String),
    /// No role follows from the person's groups.
    #[error("none of the groups of {0} has a role here; an administrator adds one to identity.providers")]
    NoRole(Principal),
}

impl PendingLogin {
    /// Begins a login.
    pub fn begin(provider: &str, return_to: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            state: random_text(),
            nonce: random_text(),
            verifier: random_text(),
            return_to: local_path(return_to),
            time: None,
        }
    }

    /// Begins an approval: the ID token proves a statement by its challenge.
    pub fn begin_approval(provider: &str, approved: &str, challenge: String, time: Timestamp) -> Self {
        Self { nonce: challenge, return_to: approved.to_owned(), time: Some(time), ..Self::begin(provider, "/") }
    }

    /// Returns the page of the provider that the browser is sent to. For an approval the person has to authenticate
    /// again.
    ///
    /// # Errors
    /// Returns an error if the provider's endpoint is no URL, or the provider proves no approvals.
    pub fn authorization_url(&self, provider: &Provider, endpoint: &str, redirect: &str) -> Result<String, String> {
        let request = AuthorizationRequest {
            client_id: self.client_id(provider)?,
            scopes: if self.time.is_some() { "" } else { &provider.scopes },
            redirect,
            state: &self.state,
            nonce: &self.nonce,
            verifier: &self.verifier,
            fresh: self.time.is_some(),
        };
        request.url(endpoint)
    }

    /// Returns the client for which the ID token is.
    ///
    /// # Errors
    /// Returns an error if the provider proves no approvals.
    pub fn client_id<'a>(&self, provider: &'a Provider) -> Result<&'a str, String> {
        if self.time.is_none() {
            return Ok(&provider.client_id);
        }
        let none = || format!("provider {} has no approval-client-id; it proves no approvals", provider.name);
        provider.approval_client_id.as_deref().ok_or_else(none)
    }

    /// Checks that a callback belongs to this login.
    ///
    /// # Errors
    /// Returns an error if its state is another.
    pub fn check_state(&self, provider: &str, state: &str) -> Result<(), LoginError> {
        let is_it = self.provider == provider && bool::from(self.state.as_bytes().ct_eq(state.as_bytes()));
        if is_it { Ok(()) } else { Err(LoginError::OtherBrowser) }
    }

    /// Verifies the ID token that was got for the code, and returns who has logged in.
    ///
    /// # Errors
    /// Returns an error if the token is not valid, or the person may not enter.
    pub fn finish(
        &self,
        id_token: &str,
        provider: &Provider,
        keys: &JwkSet,
        roles: &Roles,
        now: Timestamp,
    ) -> Result<LoggedIn, LoginError> {
        let check = IdTokenCheck {
            issuer: &provider.issuer,
            client_id: &provider.client_id,
            nonce: &self.nonce,
            max_age: None,
        };
        let claims = verify_id_token(id_token, keys, check, now)?;
        provider.person(&claims, roles)
    }

    /// Returns the cookie's value.
    ///
    /// # Errors
    /// Returns an error if it cannot be represented.
    pub fn to_cookie(&self) -> Result<String, String> {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|error| error.to_string())
    }

    /// Reads a cookie's value.
    pub fn from_cookie(value: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).ok()?).ok()
    }
}

/// A request for a code.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The client's id at the provider.
    pub client_id: &'a str,
    /// Scopes besides `openid`.
    pub scopes: &'a str,
    /// Where the provider returns to.
    pub redirect: &'a str,
    /// What the callback repeats.
    pub state: &'a str,
    /// What the ID token repeats.
    pub nonce: &'a str,
    /// PKCE's verifier.
    pub verifier: &'a str,
    /// Whether the person has to authenticate for this request, logged in or not.
    pub fresh: bool,
}

impl AuthorizationRequest<'_> {
    /// Returns the page of the provider that the browser is sent to.
    ///
    /// # Errors
    /// Returns an error if the provider's endpoint is no URL.
    pub fn url(&self, endpoint: &str) -> Result<String, String> {
        let mut url = Url::parse(endpoint).map_err(|error| format!("authorization_endpoint {endpoint:?}: {error}"))?;
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.client_id)
            .append_pair("redirect_uri", self.redirect)
            .append_pair("scope", format!("openid {}", self.scopes).trim_end())
            .append_pair("state", self.state)
            .append_pair("nonce", self.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if self.fresh {
            url.query_pairs_mut().append_pair("max_age", "0").append_pair("prompt", "login");
        }
        Ok(url.into())
    }
}

impl Provider {
    /// Returns who a verified token names, and what their groups permit.
    fn person(&self, claims: &Claims, roles: &Roles) -> Result<LoggedIn, LoginError> {
        let claim = &self.principal_claim;
        let name = claims.text(claim).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| LoginError::Name(format!("the ID token has no claim {claim} that is a text")))?;
        let principal = Principal::new(name).map_err(|error| {
            LoginError::Name(format!("claim {claim}: {error}; choose another one with principal-claim"))
        })?;
        let groups = claims.words(&self.groups_claim);
        let of_groups = groups.iter().filter_map(|group| self.roles.get(group));
        let names: Vec<&String> = of_groups.collect();
        let names = if names.is_empty() { self.default_role.iter().collect() } else { names };
        let scopes = names.into_iter().filter_map(|name| roles.scopes(name)).fold(Scopes::default(), Scopes::or);
        if scopes.is_empty() {
            return Err(LoginError::NoRole(principal));
        }
        let subject = claims.text("sub").unwrap_or_default().to_owned();
        Ok(LoggedIn { principal, scopes, subject })
    }
}

/// Returns the login page that returns to a path.
pub fn login_path(return_to: &str) -> String {
    let next: String = form_urlencoded::byte_serialize(local_path(return_to).as_bytes()).collect();
    format!("/login?next={next}")
}

/// Returns a path of this server; what may lead elsewhere becomes `/`.
pub fn local_path(path: &str) -> String {
    let is_local = path.starts_with('/')
        && !path.starts_with("//")
        && path.chars().count() <= MAX_RETURN_CHARS
        && path.chars().all(|c| c.is_ascii_graphic() && c != '\\');
    if is_local { path.to_owned() } else { "/".to_owned() }
}

#[cfg(test)]
mod tests;
