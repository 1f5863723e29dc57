//! Incidents that people make: opened by hand, split from another one, or reopened after their end.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_domain::{Severity, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::{Backend, Decision, DecisionRequest};
use crate::decision_routes::DecisionRoutes;
use crate::problem_responses::{GuardErrors, IncidentErrors, ProblemDocument};
use crate::request::{Caller, JsonBody, check_reason, if_match, parse_incident_id};
use crate::resources_backend::{NewIncidentRequest, SplitRequest};
use crate::views::{DecisionView, IncidentSummary, SplitView};

/// Maximum length of a title, in bytes: it is shown in one line.
const MAX_TITLE_BYTES: usize = 300;
/// Maximum number of entities, and of pieces of evidence, of one request.
const MAX_NAMES: usize = 50;
/// Maximum length of the name or id of an entity, in bytes.
const MAX_NAME_BYTES: usize = 1024;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let create_backend = backend.clone();
    DecisionRoutes::new(backend)
        .post("/api/v1/incidents/{id}/split", split)
        .post("/api/v1/incidents/{id}/reopen", reopen)
        .routes()
        .post("/api/v1/incidents", Access::Respond, move |caller: Caller, body: JsonBody<CreateIncidentRequest>| {
            create(create_backend.clone(), caller, body)
        })
}

/// An incident that a person opens.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateIncidentRequest {
    /// One line, 1 to 300 bytes.
    #[schema(min_length = 1)]
    title: String,
    /// What is affected: names, `kind:name` such as `database:orders`, or ids of `/api/v1/entities`. One that telemetry
    /// does not know is a service of this name.
    #[schema(min_items = 1, max_items = 50)]
    entities: Vec<String>,
    /// `info`, `warning`, `high` or `critical`; `high` by default.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "high")]
    severity: Option<Severity>,
    /// The first comment, at most 4096 bytes.
    #[serde(default)]
    description: String,
    /// When it began; by default the newest time of the telemetry.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    began_at: Option<Timestamp>,
}

/// Opens an incident by hand.
///
/// It is diagnosed like one that detection has opened, and findings join it.
#[utoipa::path(
    post, path = "/api/v1/incidents", operation_id = "createIncident", tag = "incidents",
    request_body = CreateIncidentRequest,
    responses((status = 201, description = "Opened", body = IncidentSummary,
            headers(("ETag" = String, description = "Revision of the incident, for `If-Match` of a decision"))),
        (status = 400, description = "`bad_body`, `bad_title`, `bad_entity`, `bad_description` or `bad_began_at`",
            body = ProblemDocument, content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn create(
    backend: Backend,
    caller: Caller,
    JsonBody(request, _): JsonBody<CreateIncidentRequest>,
) -> Result<Response, Problem> {
    if request.entities.is_empty() {
        return Err(Problem::bad_request("bad_entity", "field entities: name at least one entity"));
    }
    let request = NewIncidentRequest {
        title: check_title(&request.title)?,
        entities: check_names("entities", request.entities)?,
        severity: request.severity.unwrap_or(Severity::High),
        description: check_text("description", "bad_description", request.description)?,
        began_at: request.began_at,
    };
    let created = (backend.resources.create_incident)((caller.0, request)).await?;
    let etag = [(header::ETAG, format!("\"{}\"", created.revision))];
    Ok((StatusCode::CREATED, etag, Json(created)).into_response())
}

/// What is split off an incident.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitIncidentRequest {
    /// Entities of the incident: names, `kind:name`, or ids.
    #[serde(default)]
    #[schema(max_items = 50)]
    entities: Vec<String>,
    /// Ids of evidence of the incident, whose entities are split off, too.
    #[serde(default)]
    #[schema(max_items = 50)]
    evidence: Vec<String>,
    /// Title of the new incident, at most 300 bytes; made from its entities by default.
    #[serde(default)]
    title: Option<String>,
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Makes another incident of some entities of an incident.
///
/// Both keep a history that names the other, and both are diagnosed. A plan about an entity that is split off is void.
/// An incident whose plan is being carried out or verified is not split, nor is one that has ended.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/split", operation_id = "splitIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body = SplitIncidentRequest,
    responses((status = 201, description = "Split", body = SplitView),
        (status = 400, description = "`bad_body`, `bad_title`, `bad_entity`, `bad_reason` or `bad_split`",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`wrong_state`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn split(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<SplitIncidentRequest>,
) -> Result<Response, Problem> {
    let request = SplitRequest {
        number: parse_incident_id(&id)?,
        if_match: if_match(&headers)?,
        entities: check_names("entities", request.entities)?,
        evidence: check_names("evidence", request.evidence)?,
        title: request.title.as_deref().map(check_title).transpose()?,
        reason: check_reason(request.reason)?,
    };
    if request.entities.is_empty() && request.evidence.is_empty() {
        return Err(Problem::bad_request("bad_split", "name what is split off in the field entities or evidence"));
    }
    let split = (backend.resources.split_incident)((caller.0, request)).await?;
    Ok((StatusCode::CREATED, Json(split)).into_response())
}

/// Reopening of an incident; the body may be empty.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReopenRequest {
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Reopens an incident that is resolved, suppressed or closed: it is investigated again.
///
/// What its plan and approvals were is in its history; it may get another plan. One that was merged into another
/// incident is not reopened.
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/reopen", operation_id = "reopenIncident", tag = "incidents",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = ReopenRequest, description = "May be empty"),
    responses((status = 200, description = "Investigated again", body = DecisionView),
        (status = 400, description = "`bad_body` or `bad_reason`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 409, description = "`wrong_state` or `merged`", body = ProblemDocument,
            content_type = "application/problem+json"), IncidentErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn reopen(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    headers: HeaderMap,
    JsonBody(request, _): JsonBody<ReopenRequest>,
) -> Result<Json<DecisionView>, Problem> {
    let decision = Decision::Reopen { reason: check_reason(request.reason)? };
    Ok(Json((backend.decide)(caller.0, DecisionRequest::new(&id, &headers, decision)?).await?))
}

/// Checks that a title is one line of text, and removes the spaces around it.
fn check_title(title: &str) -> Result<String, Problem> {
    let title = title.trim();
    if title.is_empty() || title.len() > MAX_TITLE_BYTES || title.chars().any(char::is_control) {
        let detail = format!("field title: one line of 1 to {MAX_TITLE_BYTES} bytes");
        return Err(Problem::bad_request("bad_title", detail));
    }
    Ok(title.to_owned())
}

/// Checks a text as long as a reason.
fn check_text(field: &str, code: &'static str, text: String) -> Result<String, Problem> {
    check_reason(text).map_err(|problem| {
        Problem::bad_request(code, problem.detail().replace("field reason", &format!("field {field}")))
    })
}

/// Checks the number and the length of names, and removes the spaces around them.
fn check_names(field: &str, names: Vec<String>) -> Result<Vec<String>, Problem> {
    let bad = |detail: String| Problem::bad_request("bad_entity", format!("field {field}: {detail}"));
    if names.len() > MAX_NAMES {
        return Err(bad(format!("{} entries; at most {MAX_NAMES}", names.len())));
    }
    let checked = names.into_iter().map(|name| {
        let name = name.trim();
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(bad(format!("an entry is one line of 1 to {MAX_NAME_BYTES} bytes")));
        }
        Ok(name.to_owned())
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_and_names_are_one_line() {
        assert_eq!(check_title(" orders are late ").unwrap(), "orders are late");
        for wrong in ["", "  ", "a\nb", "\u{1b}[31m", &"x".repeat(301)] {
            assert_eq!(check_title(wrong).unwrap_err().code(), "bad_title", "{wrong:?}");
        }
        let names = |names: &[&str]| check_names("entities", names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(&[" cart", "database:orders"]).unwrap(), ["cart", "database:orders"]);
        for wrong in [&[""][..], &["a\tb"], &["x"; 51]] {
            let problem = names(wrong).unwrap_err();
            assert!(problem.code() == "bad_entity" && problem.detail().starts_with("field entities: "), "{wrong:?}");
        }
        let long = check_text("description", "bad_description", "x".repeat(4097)).unwrap_err();
        assert_eq!((long.code(), long.detail()), ("bad_description", "field description: 4097 bytes; at most 4096"));
    }
}
