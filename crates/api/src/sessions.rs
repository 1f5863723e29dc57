//! `/api/v1/session…`: the caller's session, and logins by a passkey.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wardroom_domain::Timestamp;
use wardroom_edge::{Access, Problem, Routes, login_cookie};
use wardroom_identity::cookies::Cookie;
use wardroom_identity::webauthn::Assertion;

use crate::access_backend::{Asking, MayApprove, PasskeyOptions};
use crate::asking::{Address, clear_cookie, is_secure, set_cookie};
use crate::backend::Backend;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::request::{EmptyBody, JsonBody};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [show_backend, out_backend, options_backend, passkey_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/session", Access::Read, move |caller: Asking| show(show_backend.clone(), caller))
        .post(
            "/api/v1/session/logout",
            Access::Read,
            move |caller: Asking, headers: HeaderMap, body: JsonBody<EmptyBody>| {
                log_out(out_backend.clone(), caller, headers, body)
            },
        )
        .post(
            "/api/v1/session/passkey-options",
            Access::Public,
            move |headers: HeaderMap, body: JsonBody<EmptyBody>| options(options_backend.clone(), headers, body),
        )
        .post(
            "/api/v1/session/passkey",
            Access::Public,
            move |address: Address, headers: HeaderMap, body: JsonBody<AssertionBody>| {
                log_in(passkey_backend.clone(), address, headers, body)
            },
        )
}

/// The caller, and the session by which they are logged in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    /// Tenant.
    tenant: String,
    /// Principal.
    principal: String,
    /// The nearest role.
    role: &'static str,
    /// What the caller may do, as scopes between spaces.
    scopes: String,
    /// How they have logged in: `password`, `passkey`, `oidc` or `token`; null without a session.
    #[schema(required)]
    method: Option<&'static str>,
    /// What the header `X-CSRF-Token` of a change repeats; null without a session.
    #[schema(required)]
    csrf_token: Option<String>,
    /// When the session ends, used or not; null without a session.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    ends_at: Option<Timestamp>,
    /// Whether they may approve plans.
    approval: MayApprove,
}

/// The caller's session, and whether they may approve plans.
#[utoipa::path(
    get, path = "/api/v1/session", operation_id = "getSession", tag = "access",
    responses((status = 200, description = "The session", body = SessionView), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn show(backend: Backend, caller: Asking) -> Result<Json<SessionView>, Problem> {
    let approval = backend.access.may_approve(caller.clone()).await?;
    let Asking { identity, scopes, session } = caller;
    Ok(Json(SessionView {
        tenant: identity.tenant.to_string(),
        principal: identity.principal.to_string(),
        role: identity.role.as_str(),
        scopes: scopes.words(),
        method: session.as_ref().map(|session| session.method.as_str()),
        csrf_token: session.as_ref().map(|session| session.csrf_token.clone()),
        ends_at: session.map(|session| session.ends_at),
        approval,
    }))
}

/// Ends the caller's session; the body may be empty.
#[utoipa::path(
    post, path = "/api/v1/session/logout", operation_id = "logout", tag = "access",
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 204, description = "Ended, within a second on every replica"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn log_out(
    backend: Backend,
    caller: Asking,
    headers: HeaderMap,
    _: JsonBody<EmptyBody>,
) -> Result<Response, Problem> {
    backend.access.logout(caller).await?;
    let cookie = clear_cookie(Cookie::Session, is_secure(&headers, backend.is_https));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Returns a challenge for a login by a passkey. It is kept in a cookie of the browser for ten minutes.
#[utoipa::path(
    post, path = "/api/v1/session/passkey-options", operation_id = "passkeyOptions", tag = "access",
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 200, description = "What the browser's authenticator signs", body = PasskeyOptions),
        (status = 404, description = "`no_passkeys`: identity.public-url is not set", body = ProblemDocument,
            content_type = "application/problem+json")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn options(backend: Backend, headers: HeaderMap, _: JsonBody<EmptyBody>) -> Result<Response, Problem> {
    let (options, cookie) = backend.access.passkey_challenge().await?;
    let cookie = set_cookie(Cookie::Login, &cookie, is_secure(&headers, backend.is_https))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(options)).into_response())
}

/// What a passkey has signed; every part in base64url.
#[derive(Debug, serde::Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssertionBody {
    /// Id of the passkey.
    id: String,
    /// `response.clientDataJSON`.
    client_data: String,
    /// `response.authenticatorData`.
    authenticator_data: String,
    /// `response.signature`.
    signature: String,
}

impl From<AssertionBody> for Assertion {
    fn from(body: AssertionBody) -> Self {
        let AssertionBody { id, client_data, authenticator_data, signature } = body;
        Self { id, client_data, authenticator_data, signature }
    }
}

/// Logs in by a passkey that has signed the challenge of this browser.
#[utoipa::path(
    post, path = "/api/v1/session/passkey", operation_id = "passkeyLogin", tag = "access",
    request_body = AssertionBody,
    responses((status = 204, description = "Logged in: the cookie is set"),
        (status = 401, description = "`bad_login`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_logins`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 503, description = "The database is not available", body = ProblemDocument,
            content_type = "application/problem+json")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn log_in(
    backend: Backend,
    Address(address): Address,
    headers: HeaderMap,
    JsonBody(body, _): JsonBody<AssertionBody>,
) -> Result<Response, Problem> {
    let challenge = login_cookie(&headers).map(str::to_owned).ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "bad_login", "this browser has no challenge, or it is too old")
    })?;
    let begun = backend.access.passkey_login(challenge, body.into(), address).await?;
    let is_secure = is_secure(&headers, backend.is_https);
    let mut response = StatusCode::NO_CONTENT.into_response();
    let cookies = response.headers_mut();
    cookies.append(header::SET_COOKIE, set_cookie(Cookie::Session, &begun.secret, is_secure)?);
    cookies.append(header::SET_COOKIE, clear_cookie(Cookie::Login, is_secure));
    Ok(response)
}
