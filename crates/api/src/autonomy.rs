//! What actions have earned: list, accept an offer, take it back.

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use wardroom_domain::AccessRole;
use wardroom_edge::{Access, Problem, Routes};

use crate::autonomy_views::{AutonomyChange, AutonomyPairView};
use crate::backend::Backend;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::request::{Caller, JsonBody};

/// What actions have earned.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AutonomyList {
    /// One entry for each cause and action, by rule.
    pairs: Vec<AutonomyPairView>,
}

/// Lists what actions have earned, by cause.
#[utoipa::path(
    get, path = "/api/v1/autonomy", operation_id = "listAutonomy", tag = "policy",
    responses((status = 200, description = "What actions have earned", body = AutonomyList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(backend: Backend, caller: Caller) -> Result<Json<AutonomyList>, Problem> {
    Ok(Json(AutonomyList { pairs: (backend.autonomy)(caller.tenant.clone()).await? }))
}

/// Accepts an offer, or takes autonomy back.
///
/// Needs the role admin. What is above the level in force has to be offered.
#[utoipa::path(
    post, path = "/api/v1/autonomy", operation_id = "setAutonomy", tag = "policy",
    request_body = AutonomyChange,
    responses((status = 200, description = "The level is in force", body = AutonomyPairView),
        (status = 400, description = "`bad_body` or `bad_level`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`not_earned`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn set(
    backend: Backend,
    caller: Caller,
    JsonBody(change, _): JsonBody<AutonomyChange>,
) -> Result<Json<AutonomyPairView>, Problem> {
    if caller.role != AccessRole::Admin {
        let detail = "levels of autonomy are set by administrators; use a token with the role admin";
        return Err(Problem::new(StatusCode::FORBIDDEN, "role_forbidden", detail));
    }
    Ok(Json((backend.set_autonomy)(caller.0, change).await?))
}

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (list_backend, set_backend) = (backend.clone(), backend.clone());
    Routes::new().get("/api/v1/autonomy", Access::Read, move |caller: Caller| list(list_backend.clone(), caller)).post(
        "/api/v1/autonomy",
        Access::Respond,
        move |caller: Caller, body: JsonBody<AutonomyChange>| set(set_backend.clone(), caller, body),
    )
}
