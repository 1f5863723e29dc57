//! Who makes a request: by a static token, a signed token of a program, or the session of a browser.
//!
//! ```text
//! Authorization: Bearer wr_… ─► TokenTable        ─┐
//! Authorization: Bearer ey…  ─► MachineTokens      ├─► Caller: identity, scopes ─► scope of the route?
//! Cookie                     ─► SessionTable + CSRF ┘
//! ```
//!
//! Problem: a browser sends a cookie by itself. Model: a request with a session that may change something must come
//! from a page of this server and, below `/api/`, repeat the session's token, which only such a page can read; forms of
//! pages have a token of their own. Guarantee: every table is in memory, so that no request waits for a database.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use wardroom_domain::Timestamp;
use wardroom_identity::cookies::Cookie;
use wardroom_identity::jws::is_signed_token;
use wardroom_identity::machine_tokens::{MachineRefusal, MachineTokens};
use wardroom_identity::scopes::{Scope, Scopes};
use wardroom_identity::sessions::{ActiveSession, Caller, SessionEnd, SessionRecord, SessionTable};

use crate::auth::{AuthMode, TokenTable, extract_secret, secrets_match};
use crate::problem::Problem;
use crate::routes::{Access, Route};

/// Header of a request with a session that changes something: the session's token.
pub const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Stores the new secret of a session; returns whether it is stored.
pub type StoreRotationFn = dyn Fn(SessionRecord) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// The address of the client of a request; an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The credentials beside static tokens; cheap to clone.
#[derive(Clone)]
pub struct Callers {
    /// The sessions in force.
    pub sessions: SessionTable,
    /// The issuers of programs' tokens.
    pub machines: MachineTokens,
    /// Has the keys of an issuer read again.
    pub read_keys: Arc<dyn Fn(String) + Send + Sync>,
    /// Stores the new secret of a session.
    pub store_rotation: Arc<StoreRotationFn>,
    /// Whether people reach this server by TLS, as the configuration says.
    pub is_https: bool,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").field("is_https", &self.is_https).finish_non_exhaustive()
    }
}

impl Default for Callers {
    /// No sessions, and no issuers.
    fn default() -> Self {
        Self {
            sessions: SessionTable::new(Duration::ZERO),
            machines: MachineTokens::default(),
            read_keys: Arc::new(|_| {}),
            store_rotation: Arc::new(|_| Box::pin(async { false })),
            is_https: false,
        }
    }
}

impl Callers {
    /// Authenticates a request.
    pub(crate) fn authenticate(
        &self,
        tokens: &TokenTable,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Caller, Problem> {
        let secret = if tokens.mode() == AuthMode::On { extract_secret(headers) } else { None };
        match secret {
            Some(token) if is_signed_token(&token) && !self.machines.issuers().is_empty() => self.machine(&token, now),
            Some(_) => of_token(tokens, headers, now),
            None => match session_secret(headers).filter(|_| tokens.mode() == AuthMode::On) {
                Some(secret) => self.session(secret, now),
                None => of_token(tokens, headers, now),
            },
        }
    }

    fn machine(&self, token: &str, now: Timestamp) -> Result<Caller, Problem> {
        self.machines.authenticate(token, now).map_err(|refusal| match refusal {
            MachineRefusal::Invalid(reason) => {
                Problem::new(StatusCode::UNAUTHORIZED, "bad_token", format!("the signed token: {reason}"))
            }
            MachineRefusal::KeysNeeded(issuer) => {
                (self.read_keys)(issuer);
                let detail = "the keys of the token's issuer are being read; repeat the request";
                Problem::unavailable("issuer_unavailable", detail).retry_after(1.0)
            }
        })
    }

    fn session(&self, secret: &str, now: Timestamp) -> Result<Caller, Problem> {
        self.sessions.authenticate(secret, now).map_err(|end| match end {
            SessionEnd::Unknown => {
                Problem::new(StatusCode::UNAUTHORIZED, "session_ended", "the session has ended; log in again")
            }
            SessionEnd::Expired => {
                Problem::new(StatusCode::UNAUTHORIZED, "session_expired", "the session has expired; log in again")
            }
            SessionEnd::Unavailable => {
                Problem::unavailable("session_store_unavailable", "the sessions cannot be read; retry")
            }
        })
    }

    /// Replaces the secret of a session that is old enough. Returns the header that gives it to the browser.
    pub(crate) async fn rotate(&self, session: &ActiveSession, is_secure: bool, now: Timestamp) -> Option<HeaderValue> {
        let (secret, record) = self.sessions.rotate(&session.id, now)?;
        let stored = (self.store_rotation)(record).await;
        let cookie = HeaderValue::from_str(&Cookie::Session.set(&secret, is_secure)).ok();
        cookie.filter(|_| stored)
    }

    /// Returns whether the browser reaches this server by TLS. The header is removed unless a named
    /// proxy has sent it.
    pub fn is_secure(&self, headers: &HeaderMap) -> bool {
        let forwarded = headers.get(FORWARDED_PROTO).and_then(|value| value.to_str().ok());
        let last = forwarded.and_then(|value| value.rsplit(',').next());
        self.is_https || last.is_some_and(|last| last.trim().eq_ignore_ascii_case("https"))
    }
}

fn of_token(tokens: &TokenTable, headers: &HeaderMap, now: Timestamp) -> Result<Caller, Problem> {
    let identity = tokens.authenticate(headers, now)?;
    Ok(Caller { scopes: Scopes::of_role(identity.role), identity, session: None })
}

/// Returns the secret of the session's cookie.
pub fn session_secret(headers: &HeaderMap) -> Option<&str> {
    Cookie::Session.find(headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()))
}

/// Returns the value of the cookie of a login that has begun.
pub fn login_cookie(headers: &HeaderMap) -> Option<&str> {
    Cookie::Login.find(headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()))
}

/// Checks that a page of this server makes a request that changes something with a session.
pub(crate) fn check_csrf(route: Route, session: &ActiveSession, headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(header::ORIGIN) {
        let detail = "a change with a session must come from a page of this server (header Origin)";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", detail));
    }
    // Forms of pages have a token in the form, which their handlers check.
    if !route.path.starts_with("/api/") {
        return Ok(());
    }
    let sent = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if secrets_match(sent, &session.csrf_token) {
        return Ok(());
    }
    let detail = "the header X-CSRF-Token must repeat `csrf_token` of GET /api/v1/session";
    Err(Problem::new(StatusCode::FORBIDDEN, "bad_csrf_token", detail))
}

/// Checks that a caller may use a route.
pub(crate) fn check_scope(route: Route, caller: &Caller) -> Result<(), Problem> {
    let Some(scope) = needed_scope(route) else { return Ok(()) };
    if caller.scopes.has(scope) {
        return Ok(());
    }
    let (role, method, path) = (caller.identity.role.as_str(), route.method, route.path);
    let is_role = Scopes::of_role(caller.identity.role) == caller.scopes;
    let has = if is_role { format!("role {role}") } else { format!("{:?}", caller.scopes) };
    let is_password = caller.session.as_ref().is_some_and(|session| session.method.is_for_reading());
    let remedy = if is_password { "log in with a passkey: a password is for reading" } else { "ask an administrator" };
    let detail = format!("{has} may not use {method} {path}, which needs {}; {remedy}", scope.as_str());
    Err(Problem::new(StatusCode::FORBIDDEN, "role_forbidden", detail))
}

/// Operations that relay what a person has decided about actions.
const DECISIONS: [&str; 5] = ["approve", "approved", "review", "resume", "stop-all"];

fn needed_scope(route: Route) -> Option<Scope> {
    match route.access {
        Access::Public => None,
        Access::Send => Some(Scope::TelemetryWrite),
        Access::Read => Some(Scope::IncidentsRead),
        Access::Respond => {
            let last = route.path.rsplit('/').next().unwrap_or_default();
            Some(if DECISIONS.contains(&last) { Scope::ActionsApprove } else { Scope::IncidentsWrite })
        }
        Access::Admin => Some(Scope::ToolsManage),
    }
}

/// Returns whether a person's browser asks for a page: then it is sent to the login instead of an error.
pub(crate) fn wants_page(route: Route, headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    route.method == "GET"
        && !route.path.starts_with("/api/")
        && accepts.contains("text/html")
        && !headers.contains_key(header::AUTHORIZATION)
}

#[cfg(test)]
mod tests;
