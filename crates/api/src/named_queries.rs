//! Table usage, named queries, log search and traces: `/api/v1/lake`, `/api/v1/ask…`, `/api/v1/logs`,
//! `/api/v1/traces/{id}`.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::request::{Caller, DEFAULT_ROWS, MAX_ROWS, NamedQuery, parse_trace_id};
use crate::warnings::with_warnings;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let copy = || backend.clone();
    let (list_backend, run_backend, logs_backend, trace_backend, usage_backend) =
        (copy(), copy(), copy(), copy(), copy());
    Routes::new()
        .get("/api/v1/ask", Access::Read, move || list(list_backend.clone()))
        .get(
            "/api/v1/ask/{name}",
            Access::Read,
            move |caller: Caller, name: Path<String>, query: RawQuery, headers: HeaderMap| {
                run(run_backend.clone(), caller, name, query, headers)
            },
        )
        .get("/api/v1/lake", Access::Read, move |caller: Caller| table_usage(usage_backend.clone(), caller))
        .get("/api/v1/logs", Access::Read, move |caller: Caller, query: RawQuery, headers: HeaderMap| {
            search_logs(logs_backend.clone(), caller, query, headers)
        })
        .get(
            "/api/v1/traces/{id}",
            Access::Read,
            move |caller: Caller, id: Path<String>, query: RawQuery, headers: HeaderMap| {
                show_trace(trace_backend.clone(), caller, id, query, headers)
            },
        )
}

async fn table_usage(backend: Backend, caller: Caller) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "tables": (backend.tables.usage)(caller.tenant.clone()).await? })))
}

async fn list(backend: Backend) -> Json<Value> {
    let queries = backend.tables.named_queries.iter().map(|(name, sql)| json!({ "name": name, "sql": sql }));
    Json(json!({ "questions": queries.collect::<Vec<_>>() }))
}

async fn run(
    backend: Backend,
    caller: Caller,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut query, format, mut warnings) =
        NamedQuery::parse(query.as_deref().unwrap_or_default(), &headers, DEFAULT_ROWS)?;
    if !backend.tables.named_queries.iter().any(|(known, _)| *known == name) {
        let detail = format!("there is no named query {name:?}; GET /api/v1/ask lists them");
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_such_question", detail));
    }
    query.name = name;
    let (tenant, sql) = (caller.tenant.clone(), sql_of(&backend, &query.name));
    let table = (backend.tables.run_named_query)(tenant.clone(), query, format).await?;
    warnings.extend((backend.tables.missing_samples)(&tenant, &sql));
    Ok(with_warnings(format.response(table), warnings))
}

/// Returns the text of a named query.
fn sql_of(backend: &Backend, name: &str) -> String {
    let found = backend.tables.named_queries.iter().find(|(known, _)| *known == name);
    found.map_or_else(String::new, |(_, sql)| (*sql).to_owned())
}

async fn search_logs(
    backend: Backend,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (query, format, warnings) = NamedQuery::parse(query.as_deref().unwrap_or_default(), &headers, DEFAULT_ROWS)?;
    let table = (backend.tables.search_logs)(caller.tenant.clone(), query, format).await?;
    Ok(with_warnings(format.response(table), warnings))
}

async fn show_trace(
    backend: Backend,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (parsed, format, warnings) = NamedQuery::parse(query.as_deref().unwrap_or_default(), &headers, MAX_ROWS)?;
    // The whole trace: of the parameters only format and limit apply.
    let (all, ..) = NamedQuery::parse("", &headers, parsed.limit)?;
    let query = NamedQuery { name: "trace".to_owned(), trace: Some(parse_trace_id(&id)?), ..all };
    let table = (backend.tables.run_named_query)(caller.tenant.clone(), query, format).await?;
    Ok(with_warnings(format.response(table), warnings))
}
