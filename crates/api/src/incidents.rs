//! `/api/v1/incidents…` and seed 004's name for it.

use axum::Json;
use axum::extract::{Extension, Path, Query};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wardroom_domain::Identity;
use wardroom_edge::{Access, Problem, Routes, secret};

use crate::backend::{Backend, Decision, Proof};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let b = || backend.clone();
    let (b1, b2, b3, b4, b5, b6, b7) = (b(), b(), b(), b(), b(), b(), b());
    Routes::new()
        .get("/api/v1/incidents", Access::Read, move |who: Who, page: Query<Page>| list(b1.clone(), who, page))
        .get("/api/v1/incidents/{id}", Access::Read, move |who: Who, id: Path<String>| show(b2.clone(), who, id))
        .post(
            "/api/v1/incidents/{id}/approve",
            Access::Respond,
            move |who: Who, id: Path<String>, headers: HeaderMap, body: String| {
                approve(b3.clone(), who, id, headers, body)
            },
        )
        .post("/api/v1/incidents/{id}/reject", Access::Respond, move |who: Who, id: Path<String>, body: String| {
            reject(b4.clone(), who, id, body)
        })
        .post("/api/v1/incidents/{id}/verdict", Access::Respond, move |who: Who, id: Path<String>, body: String| {
            verdict(b5.clone(), who, id, body)
        })
        .post("/api/v1/incidents/{id}/close", Access::Respond, move |who: Who, id: Path<String>| {
            close(b6.clone(), who, id)
        })
        .get("/api/v1/incidents/{id}/postmortem", Access::Read, move |who: Who, id: Path<String>| {
            postmortem(b7.clone(), who, id)
        })
}

/// Whoever the guard let in.
pub(crate) type Who = Extension<Identity>;

/// The number in `INC-42`.
pub(crate) fn number(id: &str) -> Result<i64, Problem> {
    let number = id.strip_prefix("INC-").and_then(|digits| digits.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no_such_incident", format!("{id:?} is not of the form INC-42"))
    })
}

#[derive(Debug, Deserialize)]
struct Page {
    cursor: Option<i64>,
    limit: Option<u32>,
}

async fn list(backend: Backend, who: Who, page: Query<Page>) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(100).clamp(1, 1000);
    let incidents = (backend.incidents)(who.tenant.clone(), page.cursor.unwrap_or(i64::MAX), limit).await?;
    let next = incidents.last().filter(|_| incidents.len() == limit as usize).map(|last| last.number);
    Ok(Json(json!({ "incidents": incidents, "next": next })))
}

async fn show(backend: Backend, who: Who, id: Path<String>) -> Result<Json<Value>, Problem> {
    let detail = (backend.incident)(who.tenant.clone(), number(&id)?).await?;
    Ok(Json(serde_json::to_value(detail).map_err(|error| Problem::unavailable("unrenderable", error.to_string()))?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    plan_sha256: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    channel: Option<String>,
}

async fn approve(
    backend: Backend,
    who: Who,
    id: Path<String>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Problem> {
    let Approve { plan_sha256, reason, channel } = read(&body)?;
    let proof = secret(&headers).ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "no_credential",
            "the executor wants the approver's bearer token as proof",
        )
    })?;
    let channel = if channel.as_deref() == Some("cli") { "cli" } else { "http" }.to_owned();
    let decision = Decision::Approve { plan_sha256, reason, proof: Proof(proof), channel };
    let answer = (backend.decide)(who.0, number(&id)?, decision).await?;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Reject {
    reason: String,
}

async fn reject(backend: Backend, who: Who, id: Path<String>, body: String) -> Result<Json<Value>, Problem> {
    let Reject { reason } = if body.trim().is_empty() { Reject::default() } else { read(&body)? };
    Ok(Json((backend.decide)(who.0, number(&id)?, Decision::Reject { reason }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    verdict: String,
    cause: Option<String>,
}

async fn verdict(backend: Backend, who: Who, id: Path<String>, body: String) -> Result<Json<Value>, Problem> {
    let Verdict { verdict, cause } = read(&body)?;
    if !["real", "noise", "wrong_cause"].contains(&verdict.as_str()) {
        return Err(Problem::bad_request("bad_verdict", "field verdict: must be real, noise or wrong_cause"));
    }
    Ok(Json((backend.decide)(who.0, number(&id)?, Decision::Verdict { verdict, cause }).await?))
}

async fn close(backend: Backend, who: Who, id: Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json((backend.decide)(who.0, number(&id)?, Decision::Close).await?))
}

async fn postmortem(backend: Backend, who: Who, id: Path<String>) -> Result<Response, Problem> {
    let text = (backend.postmortem)(who.tenant.clone(), number(&id)?).await?;
    Ok(([("content-type", "text/markdown; charset=utf-8")], text).into_response())
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Problem> {
    serde_json::from_str(body).map_err(|error| Problem::bad_request("bad_body", format!("body: {error}")))
}
