//! `/api/v1/dead-letters`: lists and replays dead letters. `/api/v1/quarantine`: redrives quarantined records.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::paging::PageParameters;
use crate::problem_responses::{GuardErrors, ProblemDocument, TableErrors};
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, EmptyBody, JsonBody};
use crate::views::DeadLetterView;
use crate::warnings::{unknown_names, with_warnings};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (list_backend, show_backend, replay_backend, redrive_backend) =
        (backend.clone(), backend.clone(), backend.clone(), backend.clone());
    Routes::new()
        .get("/api/v1/dead-letters", Access::Read, move |caller: Caller, page: QueryParameters<PageParameters>| {
            list(list_backend.clone(), caller, page)
        })
        .get("/api/v1/dead-letters/{id}", Access::Read, move |caller: Caller, id: Path<String>| {
            show(show_backend.clone(), caller, id)
        })
        .post(
            "/api/v1/dead-letters/{id}/replay",
            Access::Respond,
            move |caller: Caller, id: Path<String>, body: JsonBody<EmptyBody>| {
                replay(replay_backend.clone(), caller, id, body)
            },
        )
        .post(
            "/api/v1/quarantine/{offset}/redrive",
            Access::Respond,
            move |caller: Caller, offset: Path<String>, body: JsonBody<EmptyBody>| {
                redrive(redrive_backend.clone(), caller, offset, body)
            },
        )
}

/// Dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterList {
    /// Oldest first.
    dead_letters: Vec<DeadLetterView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Dead letters of detection, oldest first.
#[utoipa::path(
    get, path = "/api/v1/dead-letters", operation_id = "listDeadLetters", tag = "ingest",
    params(PageParameters),
    responses((status = 200, description = "One page of dead letters", body = DeadLetterList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(
    backend: Backend,
    caller: Caller,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let found = (backend.dead_letters)(caller.tenant.clone()).await?;
    let page = page.of(found, |dead_letter| format!("{:020}", dead_letter.id));
    Ok(page.response(|dead_letters, next| DeadLetterList { dead_letters, next }))
}

/// One dead letter.
#[utoipa::path(
    get, path = "/api/v1/dead-letters/{id}", operation_id = "getDeadLetter", tag = "ingest",
    params(("id" = String, Path, description = "Number of the dead letter")),
    responses((status = 200, description = "The dead letter", body = DeadLetterView),
        (status = 404, description = "`no_such_dead_letter`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn show(
    backend: Backend,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Problem> {
    let dead_letters = (backend.dead_letters)(caller.tenant.clone()).await?;
    let found = dead_letters.into_iter().find(|dead_letter| dead_letter.id.to_string() == id);
    found.map(Json).ok_or_else(|| no_such_dead_letter(&id))
}

/// What a replay did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayResult {
    /// Number of the dead letter.
    id: u64,
    /// New offset of the record on the bus.
    offset: u64,
}

/// Replays a dead letter, at most once.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/{id}/replay", operation_id = "replayDeadLetter", tag = "ingest",
    params(("id" = String, Path, description = "Number of the dead letter")),
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 200, description = "On the bus again", body = ReplayResult),
        (status = 404, description = "`no_such_dead_letter`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 410, description = "`gone`: the record is not retained any more", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn replay(
    backend: Backend,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(_, ignored): JsonBody<EmptyBody>,
) -> Result<Response, Problem> {
    let number = id.parse().map_err(|_| no_such_dead_letter(&id))?;
    let replayed = (backend.replay_dead_letter)(caller.0.clone(), number).await?;
    let offset = replayed.ok_or_else(|| no_such_dead_letter(&id))?;
    Ok(with_ignored(&ReplayResult { id: number, offset }, &ignored))
}

/// What a redrive did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RedriveResult {
    /// Offset of the request.
    offset: u64,
    /// Offset of the records that are accepted now.
    redriven_as: u64,
}

/// Validates the quarantined records of a request again, with the current limits.
#[utoipa::path(
    post, path = "/api/v1/quarantine/{offset}/redrive", operation_id = "redriveRecords", tag = "ingest",
    params(("offset" = String, Path, description = "Offset of the request on the bus")),
    request_body(content = EmptyBody, description = "May be empty"),
    responses((status = 200, description = "Records are accepted now", body = RedriveResult),
        (status = 400, description = "No record passes; `detail` has the first reason", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 404, description = "`not_in_quarantine`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 410, description = "`gone`: the request is not retained any more", body = ProblemDocument,
            content_type = "application/problem+json"), TableErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn redrive(
    backend: Backend,
    caller: Caller,
    Path(offset): Path<String>,
    JsonBody(_, ignored): JsonBody<EmptyBody>,
) -> Result<Response, Problem> {
    let not_in_quarantine = || {
        let detail = format!("no request at offset {offset} has records in quarantine; silver.quarantine lists them");
        Problem::new(StatusCode::NOT_FOUND, "not_in_quarantine", detail)
    };
    let number = offset.parse().map_err(|_| not_in_quarantine())?;
    let redriven_as = (backend.redrive)(caller.0.clone(), number).await?.ok_or_else(not_in_quarantine)?;
    Ok(with_ignored(&RedriveResult { offset: number, redriven_as }, &ignored))
}

/// The response to a request whose body needs no fields.
fn with_ignored(response: &impl Serialize, ignored: &[String]) -> Response {
    let warning = unknown_names("field", ignored.iter().map(String::as_str), &[""; 0]);
    with_warnings(Json(response), warning.into_iter().collect())
}

fn no_such_dead_letter(id: &str) -> Problem {
    let detail = format!("there is no dead letter {id}; GET /api/v1/dead-letters lists them");
    Problem::new(StatusCode::NOT_FOUND, "no_such_dead_letter", detail)
}
