//! `/api/v1/incidents/{id}…`: shows and decides incidents. The operations are documented beside their handlers.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_domain::visible_text;
use wardroom_edge::{Access, Problem, Routes, extract_secret};

use crate::backend::{ApprovalProof, Backend, Decision, DecisionRequest};
use crate::decision_routes::DecisionRoutes;
use crate::problem_responses::{IncidentErrors, ProblemDocument};
use crate::request::{Caller, JsonBody, check_reason, parse_incident_id};
use crate::sessions::AssertionBody;
use crate::views::{DecisionView, IncidentDetail};
use crate::warnings::{unknown_names, with_warnings};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [show_backend, postmortem_backend] = std::array::from_fn(|_| backend.clone());
    DecisionRoutes::new(backend)
        .post("/api/v1/incidents/{id}/approve", approve)
        .post("/api/v1/incidents/{id}/reject", reject)
        .post("/api/v1/incidents/{id}/verdict", verdict)
        .post("/api/v1/incidents/{id}/close", close)
        .routes()
        .get("/api/v1/incidents/{id}", Access::Read, move |caller: Caller, id: Path<String>| {
            show(show_backend.clone(), caller, id)
        })
        .get("/api/v1/incidents/{id}/postmortem", Access::Read, move |caller: Caller, id: Path<String>| {
            postmortem(postmortem_backend.clone(), caller, id)
        })
}

/// Returns one incident with timeline, hypotheses, evidence and plan.
#[utoipa::path(
    get, path = "/api/v1/incidents/{id}", operation_id = "getIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    responses((status = 200, description = "The incident", body = IncidentDetail,
            headers(("ETag" = String, description = "Revision of the incident, for `If-Match` of a decision"))),
        IncidentErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn show(backend: Backend, caller: Caller, id: Path<String>) -> Result<Response, Problem> {
    let detail = (backend.incident)(caller.tenant.clone(), parse_incident_id(&id)?).await?;
    Ok(([(header::ETAG, format!("\"{}\"", detail.summary.revision))], Json(detail)).into_response())
}

/// Approval of a plan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveRequest {
    /// SHA-256 of the plan, as shown with the incident.
    plan_sha256: String,
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
    /// `cli` if the command line sends the request, `page` if a page does.
    #[serde(default)]
    channel: Option<String>,
    /// The approver's signature over tenant, incident, plan hash and time; `docs/security.md` says how it is made.
    /// Without it the bearer token is the proof, which counts only for approvers who are listed with `proof: token`.
    #[serde(default)]
    proof: Option<ProofRequest>,
}

/// A proof: the time of the statement, and one of signature, passkey and ID token.
#[derive(Debug, Deserialize, serde::Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofRequest {
    /// Time of the statement that was signed.
    #[schema(value_type = String, format = DateTime)]
    time: wardroom_domain::Timestamp,
    /// The SSH signature, from `-----BEGIN SSH SIGNATURE-----` on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    signature: String,
    /// In place of a signature: what a passkey of the approver has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passkey: Option<AssertionBody>,
    /// In place of a signature: an ID token of the approver's provider, whose nonce is the statement's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    /// Reason for an approval by break-glass: one that does not wait for a second person or the end of a freeze.
    /// Another approver has to review it afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    break_glass: Option<String>,
}

impl ProofRequest {
    /// Returns the proof of a request: the signature, or the bearer token.
    pub(crate) fn of(request: Option<Self>, headers: &HeaderMap) -> Result<ApprovalProof, Problem> {
        if let Some(signed) = request {
            let text = serde_json::to_string(&signed);
            let text = text.map_err(|error| Problem::bad_request("bad_body", format!("field proof: {error}")))?;
            return Ok(ApprovalProof(text));
        }
        extract_secret(headers).map(ApprovalProof).ok_or_else(|| {
            let detail = "approvals require a signature (field proof), or a bearer token, which the executor verifies";
            Problem::new(StatusCode::UNAUTHORIZED, "no_credential", detail)
        })
    }
}

/// Approves the plan with the given hash.
///
/// The proof is passed to the executor, which verifies it against its list of approvers.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/approve", operation_id = "approvePlan", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = ApproveRequest,
    responses((status = 202, description = "Approved; the executor runs the plan", body = DecisionView),
        (status = 400, description = "`bad_body`, `bad_reason` or `invalid_plan`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`plan_changed`, `already_used` or `wrong_state`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 410, description = "`expired`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn approve(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<ApproveRequest>,
) -> Result<Response, Problem> {
    let ApproveRequest { plan_sha256, reason, channel, proof } = request;
    let reason = check_reason(reason)?;
    let proof = ProofRequest::of(proof, &headers)?;
    let channel = channel.filter(|channel| ["cli", "page"].contains(&channel.as_str()));
    let channel = channel.unwrap_or_else(|| "http".to_owned());
    let decision = Decision::Approve { plan_sha256, reason, proof, channel };
    let decided = (backend.decide)(caller.0, DecisionRequest::new(&id, &headers, decision)?).await?;
    Ok((StatusCode::ACCEPTED, Json(decided)).into_response())
}

/// Rejection of a plan; the body may be empty.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RejectRequest {
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Rejects the plan.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/reject", operation_id = "rejectPlan", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = RejectRequest, description = "May be empty"),
    responses((status = 200, description = "Rejected; the incident is escalated", body = DecisionView),
        (status = 400, description = "`bad_body` or `bad_reason`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`wrong_state`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn reject(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<RejectRequest>,
) -> Result<Json<DecisionView>, Problem> {
    let decision = Decision::Reject { reason: check_reason(request.reason)? };
    Ok(Json((backend.decide)(caller.0, DecisionRequest::new(&id, &headers, decision)?).await?))
}

/// Verdict on an incident.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerdictRequest {
    /// `real`, `noise` or `wrong_cause`.
    verdict: String,
    /// The actual cause, if known.
    cause: Option<String>,
}

/// Records whether the incident was real, noise, or had another cause.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/verdict", operation_id = "setVerdict", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = VerdictRequest,
    responses((status = 200, description = "Recorded", body = DecisionView),
        (status = 400, description = "`bad_body` or `bad_verdict`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`wrong_state`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn verdict(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<VerdictRequest>,
) -> Result<Json<DecisionView>, Problem> {
    let VerdictRequest { verdict, cause } = request;
    if !["real", "noise", "wrong_cause"].contains(&verdict.as_str()) {
        return Err(Problem::bad_request("bad_verdict", "field verdict: must be real, noise or wrong_cause"));
    }
    let decision = Decision::Verdict { verdict, cause };
    Ok(Json((backend.decide)(caller.0, DecisionRequest::new(&id, &headers, decision)?).await?))
}

/// Closing of an incident; the body may be empty.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CloseRequest {
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Closes an escalated incident.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/close", operation_id = "closeIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = CloseRequest, description = "May be empty"),
    responses((status = 200, description = "Closed", body = DecisionView),
        (status = 400, description = "`bad_body` or `bad_reason`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`wrong_state`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn close(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, ignored): JsonBody<CloseRequest>,
) -> Result<Response, Problem> {
    let decision = Decision::Close { reason: check_reason(request.reason)? };
    let decided = (backend.decide)(caller.0, DecisionRequest::new(&id, &headers, decision)?).await?;
    let warning = unknown_names("field", ignored.iter().map(String::as_str), &["reason"]);
    Ok(with_warnings(Json(decided), warning.into_iter().collect()))
}

/// Returns the postmortem in Markdown.
#[utoipa::path(
    get, path = "/api/v1/incidents/{id}/postmortem", operation_id = "getPostmortem", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    responses((status = 200, description = "The postmortem", body = String, content_type = "text/markdown"),
        IncidentErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn postmortem(backend: Backend, caller: Caller, id: Path<String>) -> Result<Response, Problem> {
    let text = (backend.postmortem)(caller.tenant.clone(), parse_incident_id(&id)?).await?;
    Ok(([("content-type", "text/markdown; charset=utf-8")], visible_text(&text).into_owned()).into_response())
}
