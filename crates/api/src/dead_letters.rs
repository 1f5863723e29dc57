//! `/api/v1/dead-letters`: lists and replays dead letters. `/api/v1/quarantine`: redrives quarantined records.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::request::{Caller, EmptyBody, JsonBody};
use crate::warnings::{unknown_names, with_warnings};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (list_backend, show_backend, replay_backend, redrive_backend) =
        (backend.clone(), backend.clone(), backend.clone(), backend.clone());
    Routes::new()
        .get("/api/v1/dead-letters", Access::Read, move |caller: Caller| list(list_backend.clone(), caller))
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

async fn list(backend: Backend, caller: Caller) -> Result<Json<Value>, Problem> {
    let dead_letters = (backend.dead_letters)(caller.tenant.clone()).await?;
    Ok(Json(json!({ "dead_letters": dead_letters })))
}

async fn show(backend: Backend, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let dead_letters = (backend.dead_letters)(caller.tenant.clone()).await?;
    let found = dead_letters.into_iter().find(|dead_letter| dead_letter.id.to_string() == id);
    found.map(|dead_letter| Json(json!(dead_letter))).ok_or_else(|| no_such_dead_letter(&id))
}

async fn replay(
    backend: Backend,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(_, ignored): JsonBody<EmptyBody>,
) -> Result<Response, Problem> {
    let number = id.parse().map_err(|_| no_such_dead_letter(&id))?;
    let replayed = (backend.replay_dead_letter)(caller.0.clone(), number).await?;
    let offset = replayed.ok_or_else(|| no_such_dead_letter(&id))?;
    Ok(with_ignored(json!({ "id": number, "offset": offset }), &ignored))
}

async fn redrive(
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
    Ok(with_ignored(json!({ "offset": number, "redriven_as": redriven_as }), &ignored))
}

/// The response to a request whose body needs no fields.
fn with_ignored(response: Value, ignored: &[String]) -> Response {
    let warning = unknown_names("field", ignored.iter().map(String::as_str), &[]);
    with_warnings(Json(response), warning.into_iter().collect())
}

fn no_such_dead_letter(id: &str) -> Problem {
    let detail = format!("there is no dead letter {id}; GET /api/v1/dead-letters lists them");
    Problem::new(StatusCode::NOT_FOUND, "no_such_dead_letter", detail)
}
