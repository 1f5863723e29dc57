//! What the tables hold, questions with a name, log search and traces: `/api/v1/lake`, `/api/v1/ask…`, `/api/v1/logs`,
//! `/api/v1/traces/{id}`.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_edge::{Access, Problem, Routes};

use crate::anomalies::moment;
use crate::backend::Backend;
use crate::incidents::Who;
use crate::samples::pairs;
use crate::sql::{TableForm, table};

/// What a named question is about.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its name; empty where the route says what is asked.
    pub name: String,
    /// From this moment on.
    pub start: Timestamp,
    /// Before this moment.
    pub end: Timestamp,
    /// One service only.
    pub service: Option<String>,
    /// One trace.
    pub trace: Option<String>,
    /// Which log lines.
    pub filter: String,
    /// Share of failed requests above which a service is shown.
    pub error_rate: f64,
    /// Milliseconds above which a service's 99th percentile is shown.
    pub p99_ms: f64,
    /// Rows at most.
    pub limit: u32,
}

pub(crate) fn routes(backend: &Backend) -> Routes {
    let b = || backend.clone();
    let (b1, b2, b3, b4, b5) = (b(), b(), b(), b(), b());
    Routes::new()
        .get("/api/v1/ask", Access::Read, move || list(b1.clone()))
        .get(
            "/api/v1/ask/{name}",
            Access::Read,
            move |who: Who, name: Path<String>, query: RawQuery, headers: HeaderMap| {
                ask(b2.clone(), who, name, query, headers)
            },
        )
        .get("/api/v1/lake", Access::Read, move |who: Who| lake(b5.clone(), who))
        .get("/api/v1/logs", Access::Read, move |who: Who, query: RawQuery, headers: HeaderMap| {
            logs(b3.clone(), who, query, headers)
        })
        .get("/api/v1/traces/{id}", Access::Read, move |who: Who, id: Path<String>, headers: HeaderMap| {
            trace(b4.clone(), who, id, headers)
        })
}

async fn lake(backend: Backend, who: Who) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "tables": (backend.tables.holdings)(who.tenant.clone()).await? })))
}

async fn list(backend: Backend) -> Json<Value> {
    let named = backend.tables.questions.iter().map(|(name, text)| json!({ "name": name, "sql": text }));
    Json(json!({ "questions": named.collect::<Vec<_>>() }))
}

async fn ask(
    backend: Backend,
    who: Who,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut question, form) = read(query.as_deref().unwrap_or_default(), &headers)?;
    if !backend.tables.questions.iter().any(|(known, _)| *known == name) {
        let detail = format!("there is no question {name:?}; GET /api/v1/ask lists them");
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_such_question", detail));
    }
    question.name = name;
    Ok(table(form, (backend.tables.ask)(who.tenant.clone(), question, form).await?))
}

async fn logs(backend: Backend, who: Who, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Problem> {
    let (question, form) = read(query.as_deref().unwrap_or_default(), &headers)?;
    Ok(table(form, (backend.tables.logs)(who.tenant.clone(), question, form).await?))
}

async fn trace(backend: Backend, who: Who, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let detail = format!("{id:?} is no trace id: 32 hexadecimal digits");
        return Err(Problem::bad_request("bad_trace_id", detail));
    }
    let (mut question, form) = read("limit=10000", &headers)?;
    (question.name, question.trace) = ("trace".to_owned(), Some(id.to_ascii_lowercase()));
    Ok(table(form, (backend.tables.ask)(who.tenant.clone(), question, form).await?))
}

fn read(query: &str, headers: &HeaderMap) -> Result<(Question, TableForm), Problem> {
    let mut question = Question {
        name: String::new(),
        start: Timestamp::from_nanos(i64::MIN),
        end: Timestamp::from_nanos(i64::MAX),
        service: None,
        trace: None,
        filter: String::new(),
        error_rate: 0.05,
        p99_ms: 1000.0,
        limit: 100,
    };
    let bad = |name: &str, value: &str, what: &str| {
        Problem::bad_request("bad_parameter", format!("parameter {name}: {value:?} is no {what}"))
    };
    let mut form = TableForm::accepted(headers);
    for (name, value) in pairs(query) {
        match name.as_str() {
            "start" => question.start = moment("start", &value)?,
            "end" => question.end = moment("end", &value)?,
            "service" => question.service = Some(value),
            "trace" => question.trace = Some(value),
            "query" => question.filter = value,
            "error_rate" => question.error_rate = value.parse().map_err(|_| bad("error_rate", &value, "number"))?,
            "p99_ms" => question.p99_ms = value.parse().map_err(|_| bad("p99_ms", &value, "number"))?,
            "limit" => {
                let limit: u32 = value.parse().map_err(|_| bad("limit", &value, "whole number"))?;
                question.limit = limit.clamp(1, 10_000);
            }
            "format" => form = TableForm::named(&value)?,
            _ => {}
        }
    }
    Ok((question, form))
}
