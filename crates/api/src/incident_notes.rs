//! What people note about an incident without deciding its plan: that they have seen it, who works on it, comments,
//! that it belongs to another one, that messages about it should stop; and its history.

use axum::Json;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::Principal;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::{Backend, Decision, DecisionRequest};
use crate::decision_routes::DecisionRoutes;
use crate::paging::PageParameters;
use crate::problem_responses::{IncidentErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, EmptyBody, JsonBody, check_reason, parse_incident_id};
use crate::views::{DecisionView, HistoryView};

/// Maximum time for which messages are suppressed, in minutes: 30 days.
const MAX_SUPPRESS_MINUTES: u32 = 30 * 24 * 60;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let past = backend.clone();
    DecisionRoutes::new(backend)
        .post("/api/v1/incidents/{id}/acknowledge", acknowledge)
        .post("/api/v1/incidents/{id}/assign", assign)
        .post("/api/v1/incidents/{id}/comment", comment)
        .post("/api/v1/incidents/{id}/merge", merge)
        .post("/api/v1/incidents/{id}/suppress", suppress)
        .routes()
        .get(
            "/api/v1/incidents/{id}/history",
            Access::Read,
            move |caller: Caller, id: Path<String>, page: QueryParameters<PageParameters>| {
                history(past.clone(), caller, id, page)
            },
        )
}

async fn note(
    backend: Backend,
    caller: Caller,
    id: &str,
    headers: &HeaderMap,
    decision: Decision,
) -> Result<Json<DecisionView>, Problem> {
    Ok(Json((backend.decide)(caller.0, DecisionRequest::new(id, headers, decision)?).await?))
}

/// Notes that the caller has seen the incident; what was noted first stays.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/acknowledge", operation_id = "acknowledgeIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 200, description = "Noted", body = DecisionView), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn acknowledge(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    _: JsonBody<EmptyBody>,
) -> Result<Json<DecisionView>, Problem> {
    note(backend, caller, &id, &headers, Decision::Acknowledge).await
}

/// Who works on an incident.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssignRequest {
    /// Principal; null for none.
    #[serde(default)]
    owner: Option<String>,
}

/// Notes who works on the incident.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/assign", operation_id = "assignIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = AssignRequest,
    responses((status = 200, description = "Noted", body = DecisionView),
        (status = 400, description = "`bad_body` or `bad_owner`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn assign(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<AssignRequest>,
) -> Result<Json<DecisionView>, Problem> {
    let owner = request.owner.map(Principal::new).transpose();
    let owner = owner.map_err(|error| Problem::bad_request("bad_owner", format!("field owner: {error}")))?;
    note(backend, caller, &id, &headers, Decision::Assign { owner }).await
}

/// A comment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommentRequest {
    /// 1 to 4096 bytes.
    #[schema(min_length = 1)]
    text: String,
}

/// Adds a comment.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/comment", operation_id = "commentIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = CommentRequest,
    responses((status = 200, description = "Added", body = DecisionView),
        (status = 400, description = "`bad_body` or `bad_comment`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`too_many_comments`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn comment(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<CommentRequest>,
) -> Result<Json<DecisionView>, Problem> {
    let text = check_reason(request.text).map_err(|problem| {
        Problem::bad_request("bad_comment", problem.detail().replace("field reason", "field text"))
    })?;
    if text.is_empty() {
        return Err(Problem::bad_request("bad_comment", "field text: must not be empty"));
    }
    note(backend, caller, &id, &headers, Decision::Comment { text }).await
}

/// The incident that another one belongs to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MergeRequest {
    /// Id of the incident that goes on.
    #[schema(example = "INC-3")]
    into: String,
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Notes that the incident is part of another one; one that is escalated is closed.
///
/// What is under way for the incident goes on: its plan can be approved or rejected as before.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/merge", operation_id = "mergeIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = MergeRequest,
    responses((status = 200, description = "Noted", body = DecisionView),
        (status = 400, description = "`bad_body`, `bad_reason` or `bad_merge`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`wrong_state`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn merge(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<MergeRequest>,
) -> Result<Json<DecisionView>, Problem> {
    let (into, reason) = (parse_incident_id(&request.into)?, check_reason(request.reason)?);
    note(backend, caller, &id, &headers, Decision::Merge { into, reason }).await
}

/// For how long messages about an incident are not wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuppressRequest {
    /// From now; 0 ends it.
    #[schema(maximum = 43200)]
    minutes: u32,
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Suppresses messages about the incident for some time; the incident itself goes on.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/suppress", operation_id = "suppressIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = SuppressRequest,
    responses((status = 200, description = "Noted", body = DecisionView),
        (status = 400, description = "`bad_body`, `bad_reason` or `bad_minutes`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn suppress(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<SuppressRequest>,
) -> Result<Json<DecisionView>, Problem> {
    if request.minutes > MAX_SUPPRESS_MINUTES {
        let detail = format!("field minutes: at most {MAX_SUPPRESS_MINUTES}");
        return Err(Problem::bad_request("bad_minutes", detail));
    }
    let decision = Decision::Suppress { minutes: request.minutes, reason: check_reason(request.reason)? };
    note(backend, caller, &id, &headers, decision).await
}

/// The history of an incident.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryList {
    /// Oldest first.
    history: Vec<HistoryView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// What happened to the incident: transitions, changes and comments, oldest first.
#[utoipa::path(
    get, path = "/api/v1/incidents/{id}/history", operation_id = "getIncidentHistory", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42"), PageParameters),
    responses((status = 200, description = "One page of the history", body = HistoryList), IncidentErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn history(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let rows = (backend.resources.history)((caller.tenant.clone(), parse_incident_id(&id)?)).await?;
    let numbered: Vec<(usize, HistoryView)> = rows.into_iter().enumerate().collect();
    let page = page.of(numbered, |(number, row)| format!("{:020}.{number:08}", row.at.nanos().max(0)));
    Ok(page.response(|rows, next| HistoryList { history: rows.into_iter().map(|(_, row)| row).collect(), next }))
}
