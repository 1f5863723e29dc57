//! `/account` and `/api/v1/passkeys…`: a person's own passkeys; and what an approval by one has to sign.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::approval_proof::{ProofAction, Statement};
use wardroom_domain::{Timestamp, visible_text};
use wardroom_edge::{Access, Problem, Routes, login_cookie};
use wardroom_identity::cookies::Cookie;
use wardroom_identity::webauthn::Registration;

use crate::access_backend::{Asking, MayApprove, PasskeyOptions, PasskeyView};
use crate::asking::{is_secure, set_cookie};
use crate::backend::Backend;
use crate::page::page_with_script;
use crate::problem_responses::{GuardErrors, IncidentErrors, ProblemDocument};
use crate::request::{Caller, EmptyBody, JsonBody, parse_incident_id};

/// Longest name of a passkey, in characters.
const MAX_NAME_CHARS: usize = 100;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [account_backend, list_backend, options_backend, register_backend, delete_backend, request_backend] =
        std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/account", Access::Read, move |caller: Asking| account(account_backend.clone(), caller))
        .get("/assets/access.js", Access::Public, script)
        .get("/api/v1/passkeys", Access::Read, move |caller: Caller| list(list_backend.clone(), caller))
        .post(
            "/api/v1/passkeys/options",
            Access::Read,
            move |caller: Asking, headers: HeaderMap, body: JsonBody<EmptyBody>| {
                options(options_backend.clone(), caller, headers, body)
            },
        )
        .post(
            "/api/v1/passkeys",
            Access::Read,
            move |caller: Asking, headers: HeaderMap, body: JsonBody<NewPasskey>| {
                register(register_backend.clone(), caller, headers, body)
            },
        )
        .post(
            "/api/v1/passkeys/{id}/delete",
            Access::Read,
            move |caller: Caller, id: Path<String>, body: JsonBody<EmptyBody>| {
                delete(delete_backend.clone(), caller, id, body)
            },
        )
        .get("/api/v1/incidents/{id}/approval-request", Access::Read, move |caller: Asking, id: Path<String>| {
            approval_request(request_backend.clone(), caller, id)
        })
}

/// HTML page: the caller's passkeys.
#[utoipa::path(
    get, path = "/account", operation_id = "pageAccount", tag = "pages",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn account(backend: Backend, caller: Asking) -> Result<Response, Problem> {
    let passkeys = backend.access.passkeys(caller.identity.clone()).await?;
    let approval = backend.access.may_approve(caller.clone()).await?;
    let csrf = caller.session.as_ref().map(|session| session.csrf_token.as_str()).unwrap_or_default();
    let body = html! {
        p { a href="./" { "All incidents" } }
        h1 { (caller.identity.principal) }
        p { "Role " b { (caller.identity.role.as_str()) } ", tenant " (caller.identity.tenant)
            @if let Some(session) = &caller.session {
                ", logged in by " (session.method.as_str()) ", until " (session.ends_at) } }
        @match &approval.reason {
            Some(reason) => p { "You cannot approve plans: " (reason) },
            None => p { "You may approve plans, proved by " (approval.proofs.join(", ")) "." },
        }
        h2 { "Passkeys" }
        @if passkeys.is_empty() { p { "None." } }
        @for passkey in &passkeys {
            p { b { (passkey.name) } ", since " (passkey.created_at)
                @if let Some(used_at) = passkey.used_at { ", used " (used_at) } br;
                "It approves plans when an operator adds this line to " code { "approvers[].passkeys" }
                " of the executor's file:" }
            pre { (passkey.approver_line) }
        }
        p { label { "Name " input id="passkey-name" maxlength=(MAX_NAME_CHARS); } " "
            button type="button" id="passkey-register" data-csrf=(csrf) data-user=(caller.identity.principal) {
                "Register a passkey" } " "
            span id="passkey-error" role="alert" {} }
        form method="post" action="logout" { button { "Log out" } }
    };
    Ok(page_with_script("Account", "assets/access.js", &body))
}

/// The script of the pages with passkeys.
#[utoipa::path(
    get, path = "/assets/access.js", operation_id = "accessScript", tag = "pages",
    responses((status = 200, description = "The script", body = String, content_type = "text/javascript")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn script() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, include_str!("access.js")).into_response()
}

/// Passkeys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PasskeyList {
    /// Oldest first.
    passkeys: Vec<PasskeyView>,
}

/// Lists the caller's passkeys.
#[utoipa::path(
    get, path = "/api/v1/passkeys", operation_id = "listPasskeys", tag = "access",
    responses((status = 200, description = "The passkeys", body = PasskeyList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(backend: Backend, caller: Caller) -> Result<Json<PasskeyList>, Problem> {
    Ok(Json(PasskeyList { passkeys: backend.access.passkeys(caller.0).await? }))
}

/// Returns a challenge for a new passkey. It is kept in a cookie of the browser for ten minutes.
#[utoipa::path(
    post, path = "/api/v1/passkeys/options", operation_id = "newPasskeyOptions", tag = "access",
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 200, description = "What the browser's authenticator needs", body = PasskeyOptions),
        (status = 404, description = "`no_passkeys`: identity.public-url is not set; `no_such_user`",
            body = ProblemDocument, content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn options(
    backend: Backend,
    caller: Asking,
    headers: HeaderMap,
    _: JsonBody<EmptyBody>,
) -> Result<Response, Problem> {
    let (options, cookie) = backend.access.registration_challenge(caller).await?;
    let cookie = set_cookie(Cookie::Login, &cookie, is_secure(&headers, backend.is_https))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(options)).into_response())
}

/// A new passkey, as the browser made it; every part in base64url.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPasskey {
    /// What its owner calls it, at most 100 characters.
    name: String,
    /// `response.clientDataJSON`.
    client_data: String,
    /// `response.attestationObject`.
    attestation_object: String,
}

/// Keeps a new passkey of the caller, for logins.
#[utoipa::path(
    post, path = "/api/v1/passkeys", operation_id = "registerPasskey", tag = "access",
    request_body = NewPasskey,
    responses((status = 201, description = "Kept", body = PasskeyView),
        (status = 400, description = "`bad_body`, `bad_name` or `bad_passkey`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 404, description = "`no_passkeys` or `no_such_user`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`passkey_exists`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn register(
    backend: Backend,
    caller: Asking,
    headers: HeaderMap,
    JsonBody(passkey, _): JsonBody<NewPasskey>,
) -> Result<Response, Problem> {
    let name = visible_text(passkey.name.trim()).into_owned();
    if name.chars().count() > MAX_NAME_CHARS {
        let detail = format!("field name: more than {MAX_NAME_CHARS} characters");
        return Err(Problem::bad_request("bad_name", detail));
    }
    let challenge = login_cookie(&headers).map(str::to_owned);
    let too_old = || Problem::bad_request("bad_passkey", "this browser has no challenge, or it is too old");
    let NewPasskey { client_data, attestation_object, .. } = passkey;
    let registration = (name, Registration { client_data, attestation_object });
    let kept = backend.access.register_passkey(caller, challenge.ok_or_else(too_old)?, registration).await?;
    Ok((StatusCode::CREATED, Json(kept)).into_response())
}

/// Deletes a passkey of the caller.
#[utoipa::path(
    post, path = "/api/v1/passkeys/{id}/delete", operation_id = "deletePasskey", tag = "access",
    params(("id" = String, Path, description = "Id of the passkey")),
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 204, description = "Deleted"),
        (status = 404, description = "`no_such_passkey`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn delete(
    backend: Backend,
    caller: Caller,
    Path(id): Path<String>,
    _: JsonBody<EmptyBody>,
) -> Result<StatusCode, Problem> {
    backend.access.delete_passkey(caller.0, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What an approval of the incident's plan has to prove, now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalRequest {
    /// SHA-256 of the plan.
    plan_sha256: String,
    /// The statement to be proved: RFC 8785 JSON.
    statement: String,
    /// Its time; an approval repeats it in `proof.time`.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// SHA-256 of the statement, in base64url: the challenge of a passkey and the nonce of an ID token.
    challenge: String,
    /// Whether the caller may approve, and by what.
    approval: MayApprove,
}

/// Returns what an approval of the incident's plan has to prove, and whether the caller may.
#[utoipa::path(
    get, path = "/api/v1/incidents/{id}/approval-request", operation_id = "getApprovalRequest", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    responses((status = 200, description = "The statement", body = ApprovalRequest),
        (status = 409, description = "`plan_changed`: the incident has no plan", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn approval_request(
    backend: Backend,
    caller: Asking,
    id: Path<String>,
) -> Result<Json<ApprovalRequest>, Problem> {
    let tenant = caller.identity.tenant.clone();
    let detail = (backend.incident)(tenant.clone(), parse_incident_id(&id)?).await?;
    let none = || Problem::new(StatusCode::CONFLICT, "plan_changed", "the incident has no plan");
    let plan = detail.plan.ok_or_else(none)?;
    let incident = plan.document["incident"].as_str().unwrap_or_default().to_owned();
    let time = backend.access.now();
    let statement = Statement::about_plan(ProofAction::Approve, tenant, incident, plan.plan_sha256.clone(), time);
    let unprintable = |error: String| Problem::unavailable("no_statement", error);
    Ok(Json(ApprovalRequest {
        plan_sha256: plan.plan_sha256,
        challenge: statement.challenge().map_err(unprintable)?,
        statement: statement.message().map_err(unprintable)?,
        time,
        approval: backend.access.may_approve(caller).await?,
    }))
}
