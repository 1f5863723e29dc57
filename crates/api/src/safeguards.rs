//! `/api/v1/stop-all`, `/api/v1/resume` and reviews: what people do when Wardroom must not act, or has acted in an
//! emergency.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::{Backend, KillSwitch};
use crate::incidents::ProofRequest;
use crate::problem_responses::{GuardErrors, IncidentErrors, ProblemDocument};
use crate::request::{Caller, JsonBody, check_reason, parse_incident_id};
use crate::views::StopView;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [read_backend, stop_backend, resume_backend, review_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/stop-all", Access::Read, move |caller: Caller| stop_state(read_backend.clone(), caller))
        .post("/api/v1/stop-all", Access::Respond, move |caller: Caller, body: JsonBody<StopRequest>| {
            stop_all(stop_backend.clone(), caller, body)
        })
        .post(
            "/api/v1/resume",
            Access::Respond,
            move |caller: Caller, headers: HeaderMap, body: JsonBody<ResumeRequest>| {
                resume(resume_backend.clone(), caller, headers, body)
            },
        )
        .post(
            "/api/v1/incidents/{id}/review",
            Access::Respond,
            move |caller: Caller, id: Path<String>, headers: HeaderMap, body: JsonBody<ReviewRequest>| {
                review(review_backend.clone(), caller, id, headers, body)
            },
        )
}

/// Says whether all actions are stopped.
#[utoipa::path(
    get, path = "/api/v1/stop-all", operation_id = "getStop", tag = "safeguards",
    responses((status = 200, description = "The stop in force", body = StopView), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn stop_state(backend: Backend, caller: Caller) -> Result<Json<StopView>, Problem> {
    Ok(Json((backend.kill_switch)(caller.0, KillSwitch::Read).await?))
}

/// A stop of all actions; the body may be empty.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopRequest {
    /// Free text for the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Stops all actions of all tenants, at once.
///
/// Nothing is begun from then on: no action, no undo, no repetition after a crash. What a target is doing already is
/// not interrupted. Only callers of the tenant `main` may do it.
#[utoipa::path(
    post, path = "/api/v1/stop-all", operation_id = "stopAll", tag = "safeguards",
    request_body(content = StopRequest, description = "May be empty"),
    responses((status = 200, description = "Stopped", body = StopView),
        (status = 400, description = "`bad_body` or `bad_reason`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn stop_all(
    backend: Backend,
    caller: Caller,
    JsonBody(request, _): JsonBody<StopRequest>,
) -> Result<Json<StopView>, Problem> {
    let reason = check_reason(request.reason)?;
    Ok(Json((backend.kill_switch)(caller.0, KillSwitch::Stop { reason }).await?))
}

/// The end of a stop.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeRequest {
    /// The signature of an approver of the tenant `main` over the id of the stop and the time.
    #[serde(default)]
    proof: Option<ProofRequest>,
}

/// Ends the stop in force. An approver proves that they want that, as for an approval.
#[utoipa::path(
    post, path = "/api/v1/resume", operation_id = "resume", tag = "safeguards",
    request_body = ResumeRequest,
    responses((status = 200, description = "Actions are possible again", body = StopView),
        (status = 400, description = "`bad_body`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn resume(
    backend: Backend,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<ResumeRequest>,
) -> Result<Json<StopView>, Problem> {
    let proof = ProofRequest::of(request.proof, &headers)?;
    Ok(Json((backend.kill_switch)(caller.0, KillSwitch::Resume { proof }).await?))
}

/// The review of an execution by break-glass.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReviewRequest {
    /// The reviewer's signature over tenant, incident, plan hash and time.
    #[serde(default)]
    proof: Option<ProofRequest>,
}

/// Confirms that another person has reviewed an execution by break-glass.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/review", operation_id = "reviewPlan", tag = "safeguards",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = ReviewRequest,
    responses((status = 204, description = "Reviewed"),
        (status = 400, description = "`bad_body` or `invalid_plan`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn review(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<ReviewRequest>,
) -> Result<StatusCode, Problem> {
    let proof = ProofRequest::of(request.proof, &headers)?;
    (backend.review)(caller.0, parse_incident_id(&id)?, proof).await?;
    Ok(StatusCode::NO_CONTENT)
}
