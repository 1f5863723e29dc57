//! `/api/v1/tokens`, `/api/v1/tenants`, `/api/v1/configuration` and `/api/v1/whoami`: who may enter, and what the
//! server runs with. Administrators of the tenant `main` see all tenants, others their own.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_domain::{AccessRole, Principal, TenantId};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::once::HasSecret;
use crate::paging::PageParameters;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, EmptyBody, JsonBody};
use crate::resource_views::{CreatedToken, TokenView};
use crate::resources_backend::NewTokenRequest;

/// Maximum lifetime of a token with one, in days.
const MAX_EXPIRES_DAYS: u64 = 3650;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [list_backend, create_backend, revoke_backend, tenants_backend, configuration_backend] =
        std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/whoami", Access::Read, whoami)
        .get("/api/v1/tokens", Access::Admin, move |caller: Caller, page: QueryParameters<PageParameters>| {
            list(list_backend.clone(), caller, page)
        })
        .post("/api/v1/tokens", Access::Admin, move |caller: Caller, body: JsonBody<TokenRequest>| {
            create(create_backend.clone(), caller, body)
        })
        .post(
            "/api/v1/tokens/{id}/revoke",
            Access::Admin,
            move |caller: Caller, id: Path<String>, body: JsonBody<EmptyBody>| {
                revoke(revoke_backend.clone(), caller, id, body)
            },
        )
        .get("/api/v1/tenants", Access::Admin, move |caller: Caller, page: QueryParameters<PageParameters>| {
            tenants(tenants_backend.clone(), caller, page)
        })
        .get("/api/v1/configuration", Access::Admin, move |caller: Caller| {
            configuration(configuration_backend.clone(), caller)
        })
}

/// Who the caller is, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Whoami {
    /// Tenant.
    tenant: String,
    /// Principal.
    principal: String,
    /// Role.
    role: &'static str,
    /// Levels of access that the role has: `send`, `read`, `respond`, `admin`.
    may: Vec<&'static str>,
}

/// Who the caller is, and what they may do.
#[utoipa::path(
    get, path = "/api/v1/whoami", operation_id = "whoami", tag = "access",
    responses((status = 200, description = "The caller", body = Whoami), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn whoami(caller: Caller) -> Json<Whoami> {
    let levels = [Access::Send, Access::Read, Access::Respond, Access::Admin];
    let may = levels.into_iter().filter(|access| access.allows(caller.role)).map(Access::as_str).collect();
    Json(Whoami {
        tenant: caller.tenant.to_string(),
        principal: caller.principal.to_string(),
        role: caller.role.as_str(),
        may,
    })
}

/// Tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenList {
    /// Oldest first.
    tokens: Vec<TokenView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists tokens, revoked ones included, without their secrets.
#[utoipa::path(
    get, path = "/api/v1/tokens", operation_id = "listTokens", tag = "access",
    params(PageParameters),
    responses((status = 200, description = "One page of tokens", body = TokenList), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn list(
    backend: Backend,
    caller: Caller,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let found = (backend.resources.tokens)(caller.0).await?;
    let page = page.of(found, |token| format!("{:020}.{}", token.created_at.nanos().max(0), token.id));
    Ok(page.response(|tokens, next| TokenList { tokens, next }))
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// The principal that it authenticates.
    principal: String,
    /// `sender`, `viewer`, `responder` or `admin`.
    role: String,
    /// Its tenant; the caller's by default. Only administrators of the tenant `main` may name another one.
    #[serde(default)]
    tenant: Option<String>,
    /// Lifetime in days; unlimited by default.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3650)]
    expires_days: Option<u64>,
}

/// Creates a token. Its secret is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/tokens", operation_id = "createToken", tag = "access",
    request_body = TokenRequest,
    responses((status = 201, description = "In force within a second", body = CreatedToken),
        (status = 400, description = "`bad_body`, `bad_principal`, `bad_role`, `bad_tenant` or `bad_expires`",
            body = ProblemDocument, content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn create(
    backend: Backend,
    caller: Caller,
    JsonBody(request, _): JsonBody<TokenRequest>,
) -> Result<Response, Problem> {
    let bad = |code, field: &str, error: String| Problem::bad_request(code, format!("field {field}: {error}"));
    if request.expires_days.is_some_and(|days| !(1..=MAX_EXPIRES_DAYS).contains(&days)) {
        return Err(bad("bad_expires", "expires_days", format!("1 to {MAX_EXPIRES_DAYS} days")));
    }
    let token = NewTokenRequest {
        principal: Principal::new(request.principal).map_err(|error| bad("bad_principal", "principal", error))?,
        role: AccessRole::parse(&request.role).map_err(|error| bad("bad_role", "role", error))?,
        tenant: request.tenant.map(TenantId::new).transpose().map_err(|error| bad("bad_tenant", "tenant", error))?,
        lifetime_s: request.expires_days.map(|days| days * 24 * 3600),
    };
    let created = (backend.resources.create_token)((caller.0, token)).await?;
    let mut response = (StatusCode::CREATED, Json(created)).into_response();
    response.extensions_mut().insert(HasSecret);
    Ok(response)
}

/// Revokes a token. Revoking it again changes nothing.
#[utoipa::path(
    post, path = "/api/v1/tokens/{id}/revoke", operation_id = "revokeToken", tag = "access",
    params(("id" = String, Path, description = "Id of the token")),
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 204, description = "Refused within a second"),
        (status = 404, description = "`no_such_token`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn revoke(
    backend: Backend,
    caller: Caller,
    Path(id): Path<String>,
    _: JsonBody<EmptyBody>,
) -> Result<StatusCode, Problem> {
    (backend.resources.revoke_token)((caller.0, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// By name.
    tenants: Vec<TenantView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Name.
    name: String,
}

/// Lists the tenants that have telemetry or tokens; of all only for administrators of the tenant `main`.
#[utoipa::path(
    get, path = "/api/v1/tenants", operation_id = "listTenants", tag = "access",
    params(PageParameters),
    responses((status = 200, description = "One page of tenants", body = TenantList), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn tenants(
    backend: Backend,
    caller: Caller,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let found = (backend.resources.tenants)(caller.0).await?;
    let page = page.of(found, String::clone);
    Ok(page.response(|names, next| TenantList {
        tenants: names.into_iter().map(|name| TenantView { name }).collect(),
        next,
    }))
}

/// The configuration in force, without secrets. For administrators of the tenant `main`.
#[utoipa::path(
    get, path = "/api/v1/configuration", operation_id = "getConfiguration", tag = "server",
    responses((status = 200, description = "Every setting", body = Object), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn configuration(backend: Backend, caller: Caller) -> Result<Json<Value>, Problem> {
    Ok(Json((backend.resources.configuration)(caller.0).await?))
}
