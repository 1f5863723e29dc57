//! `/api/v1/users…`: people who log in at this server. For administrators; of their own tenant.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::Principal;
use wardroom_edge::{Access, Problem, Routes};

use crate::access_backend::{UserRequest, UserView};
use crate::backend::Backend;
use crate::paging::PageParameters;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, EmptyBody, JsonBody};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [list_backend, create_backend, change_backend, end_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/users", Access::Admin, move |caller: Caller, page: QueryParameters<PageParameters>| {
            list(list_backend.clone(), caller, page)
        })
        .post("/api/v1/users", Access::Admin, move |caller: Caller, body: JsonBody<NewUser>| {
            create(create_backend.clone(), caller, body)
        })
        .post(
            "/api/v1/users/{principal}",
            Access::Admin,
            move |caller: Caller, principal: Path<String>, body: JsonBody<UserChange>| {
                change(change_backend.clone(), caller, principal, body)
            },
        )
        .post(
            "/api/v1/users/{principal}/end-sessions",
            Access::Admin,
            move |caller: Caller, principal: Path<String>, body: JsonBody<EmptyBody>| {
                end_sessions(end_backend.clone(), caller, principal, body)
            },
        )
}

/// Users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserList {
    /// By name.
    users: Vec<UserView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists users.
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "listUsers", tag = "access",
    params(PageParameters),
    responses((status = 200, description = "One page of users", body = UserList), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn list(
    backend: Backend,
    caller: Caller,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let found = backend.access.users(caller.tenant.clone()).await?;
    let page = page.of(found, |user| user.principal.clone());
    Ok(page.response(|users, next| UserList { users, next }))
}

/// A user to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// Name in plans and in the audit log.
    principal: String,
    /// `viewer`, `responder`, `admin`, or a role of `identity.roles`.
    role: String,
    /// A password of at least 12 characters: for reading only. Without it the user logs in with a token and registers a
    /// passkey.
    #[serde(default)]
    password: Option<String>,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// Creates a user.
#[utoipa::path(
    post, path = "/api/v1/users", operation_id = "createUser", tag = "access",
    request_body = NewUser,
    responses((status = 201, description = "Created", body = UserView),
        (status = 400, description = "`bad_body`, `bad_principal`, `bad_role` or `bad_password`",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`user_exists`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn create(
    backend: Backend,
    caller: Caller,
    JsonBody(user, _): JsonBody<NewUser>,
) -> Result<Response, Problem> {
    let principal = parse_principal(user.principal)?;
    let request = UserRequest { role: Some(user.role), password: user.password, enabled: None };
    let created = backend.access.create_user(caller.0, principal, request).await?;
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// A change of a user; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChange {
    /// The new role; in force within a second, also for sessions that exist.
    #[serde(default)]
    role: Option<String>,
    /// The new password; ends all sessions of the user.
    #[serde(default)]
    password: Option<String>,
    /// Whether they may enter; `false` ends all sessions of the user.
    #[serde(default)]
    enabled: Option<bool>,
}

impl std::fmt::Debug for UserChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserChange").field("role", &self.role).field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// Changes a user's role or password, or whether they may enter.
#[utoipa::path(
    post, path = "/api/v1/users/{principal}", operation_id = "changeUser", tag = "access",
    params(("principal" = String, Path, description = "Name of the user")),
    request_body = UserChange,
    responses((status = 200, description = "Changed; in force within a second", body = UserView),
        (status = 400, description = "`bad_body`, `bad_principal`, `bad_role` or `bad_password`",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "`no_such_user`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn change(
    backend: Backend,
    caller: Caller,
    Path(principal): Path<String>,
    JsonBody(change, _): JsonBody<UserChange>,
) -> Result<Json<UserView>, Problem> {
    let UserChange { role, password, enabled } = change;
    let request = UserRequest { role, password, enabled };
    Ok(Json(backend.access.change_user(caller.0, parse_principal(principal)?, request).await?))
}

/// How many sessions have ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndedSessions {
    /// Their number.
    ended: u64,
}

/// Ends all sessions of a person, within a second on every replica.
#[utoipa::path(
    post, path = "/api/v1/users/{principal}/end-sessions", operation_id = "endSessions", tag = "access",
    params(("principal" = String, Path, description = "Name of the person")),
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 200, description = "Ended", body = EndedSessions),
        (status = 400, description = "`bad_principal`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn end_sessions(
    backend: Backend,
    caller: Caller,
    Path(principal): Path<String>,
    _: JsonBody<EmptyBody>,
) -> Result<Json<EndedSessions>, Problem> {
    let ended = backend.access.end_sessions(caller.0, parse_principal(principal)?).await?;
    Ok(Json(EndedSessions { ended }))
}

fn parse_principal(name: String) -> Result<Principal, Problem> {
    Principal::new(name).map_err(|error| Problem::bad_request("bad_principal", format!("principal: {error}")))
}
