//! Who asks, as the guard of the port has found, and where from.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use wardroom_domain::Identity;
use wardroom_edge::{ClientAddress, Problem};
use wardroom_identity::cookies::Cookie;
use wardroom_identity::scopes::Scopes;
use wardroom_identity::sessions::ActiveSession;

use crate::access_backend::Asking;

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let identity =
            parts.extensions.get::<Identity>().cloned().ok_or_else(|| {
                Problem::new(StatusCode::UNAUTHORIZED, "no_credential", "log in, or send a bearer token")
            })?;
        let scopes = parts.extensions.get::<Scopes>().copied();
        let scopes = scopes.unwrap_or_else(|| Scopes::of_role(identity.role));
        Ok(Self { identity, scopes, session: parts.extensions.get::<ActiveSession>().cloned() })
    }
}

/// The address of the client, if the listener knows it.
pub(crate) struct Address(pub(crate) Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<ClientAddress>().map(|address| address.0)))
    }
}

/// Returns whether the browser reaches this server by TLS, as far as the request or the configuration says.
pub(crate) fn is_secure(headers: &HeaderMap, is_https: bool) -> bool {
    let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or_default();
    is_https || forwarded.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("https"))
}

/// Returns the header that sets a cookie.
pub(crate) fn set_cookie(cookie: Cookie, value: &str, is_secure: bool) -> Result<HeaderValue, Problem> {
    let invalid = |_| Problem::bad_request("bad_cookie", "the cookie cannot be represented");
    HeaderValue::from_str(&cookie.set(value, is_secure)).map_err(invalid)
}

/// Returns the header that removes a cookie.
pub(crate) fn clear_cookie(cookie: Cookie, is_secure: bool) -> HeaderValue {
    // Consists of constants.
    HeaderValue::from_str(&cookie.clear(is_secure)).unwrap_or_else(|_| HeaderValue::from_static(""))
}
