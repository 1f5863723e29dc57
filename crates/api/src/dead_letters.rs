//! `/api/v1/dead-letters`: what could not be taken, and the way back; the same for what was refused (`/api/v1/quarantine`).

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use serde_json::{Value, json};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::incidents::Who;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (b1, b2, b3, b4) = (backend.clone(), backend.clone(), backend.clone(), backend.clone());
    Routes::new()
        .get("/api/v1/dead-letters", Access::Read, move |who: Who| list(b1.clone(), who))
        .get("/api/v1/dead-letters/{id}", Access::Read, move |who: Who, id: Path<String>| show(b2.clone(), who, id))
        .post("/api/v1/dead-letters/{id}/replay", Access::Respond, move |who: Who, id: Path<String>| {
            replay(b3.clone(), who, id)
        })
        .post("/api/v1/quarantine/{offset}/redrive", Access::Respond, move |who: Who, offset: Path<String>| {
            redrive(b4.clone(), who, offset)
        })
}

async fn list(backend: Backend, who: Who) -> Result<Json<Value>, Problem> {
    let letters = (backend.dead_letters)(who.tenant.clone()).await?;
    Ok(Json(json!({ "dead_letters": letters })))
}

async fn show(backend: Backend, who: Who, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let letters = (backend.dead_letters)(who.tenant.clone()).await?;
    let found = letters.into_iter().find(|letter| letter.id.to_string() == id);
    found.map(|letter| Json(json!(letter))).ok_or_else(|| unknown(&id))
}

async fn replay(backend: Backend, who: Who, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let number = id.parse().map_err(|_| unknown(&id))?;
    let offset = (backend.replay)(who.0.clone(), number).await?.ok_or_else(|| unknown(&id))?;
    Ok(Json(json!({ "id": number, "offset": offset })))
}

async fn redrive(backend: Backend, who: Who, Path(offset): Path<String>) -> Result<Json<Value>, Problem> {
    let unknown = || {
        let detail = format!("no request at offset {offset} has records in quarantine; silver.quarantine lists them");
        Problem::new(StatusCode::NOT_FOUND, "not_in_quarantine", detail)
    };
    let number = offset.parse().map_err(|_| unknown())?;
    let landed = (backend.redrive)(who.0.clone(), number).await?.ok_or_else(unknown)?;
    Ok(Json(json!({ "offset": number, "redriven_as": landed })))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no dead letter {id}; GET /api/v1/dead-letters lists them");
    Problem::new(StatusCode::NOT_FOUND, "no_such_dead_letter", detail)
}
