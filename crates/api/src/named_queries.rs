//! Table usage, named queries, log search and traces: `/api/v1/lake`, `/api/v1/ask…`, `/api/v1/logs`,
//! `/api/v1/traces/{id}`.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::TableErrors;
use crate::request::{Caller, DEFAULT_ROWS, MAX_ROWS, NamedQuery, TableFormat, parse_trace_id};
use crate::views::TableUsageView;
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

/// The tables.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TableList {
    /// One entry for each table.
    tables: Vec<TableUsageView>,
}

/// Usage of each table: files, rows, bytes, and rows past retention.
#[utoipa::path(
    get, path = "/api/v1/lake", operation_id = "listTables", tag = "tables",
    responses((status = 200, description = "The tables", body = TableList), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn table_usage(backend: Backend, caller: Caller) -> Result<Json<TableList>, Problem> {
    Ok(Json(TableList { tables: (backend.tables.usage)(caller.tenant.clone()).await? }))
}

/// The named queries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamedQueryList {
    /// In the order of the documentation.
    questions: Vec<NamedQueryView>,
}

/// A named query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamedQueryView {
    /// Its name.
    name: &'static str,
    /// Its text; `$name` stands for a parameter.
    sql: &'static str,
}

/// The named queries, with their SQL.
#[utoipa::path(
    get, path = "/api/v1/ask", operation_id = "listNamedQueries", tag = "tables",
    responses((status = 200, description = "The named queries", body = NamedQueryList)),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(backend: Backend) -> Json<NamedQueryList> {
    let queries = backend.tables.named_queries.iter().map(|&(name, sql)| NamedQueryView { name, sql });
    Json(NamedQueryList { questions: queries.collect() })
}

/// Runs a named query.
#[utoipa::path(
    get, path = "/api/v1/ask/{name}", operation_id = "runNamedQuery", tag = "tables",
    params(("name" = String, Path, description = "Name of the query"),
        ("start" = Option<String>, Query, description = "Start, inclusive: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End, exclusive: RFC 3339 or seconds since the epoch"),
        ("service" = Option<String>, Query, description = "Only this service"),
        ("trace" = Option<String>, Query, description = "Only this trace"),
        ("error_rate" = Option<f64>, Query, description = "Least share of failed requests, 0 to 1; 0.05 by default"),
        ("p99_ms" = Option<f64>, Query, description = "Least 99th percentile of latency in ms; 1000 by default"),
        ("limit" = Option<u32>, Query, description = "Maximum number of rows; 100 by default, at most 10000"),
        ("format" = Option<TableFormat>, Query, description = "Format; otherwise by `Accept`, JSON by default")),
    responses((status = 200, description = "The rows",
            content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn run(
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

/// Searches log lines, newest first.
#[utoipa::path(
    get, path = "/api/v1/logs", operation_id = "searchLogs", tag = "logs",
    params(("query" = Option<String>, Query, description = "Conditions, such as `service=checkout level>=error`"),
        ("start" = Option<String>, Query, description = "Start, inclusive: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End, exclusive: RFC 3339 or seconds since the epoch"),
        ("limit" = Option<u32>, Query, description = "Maximum number of lines; 100 by default, at most 10000"),
        ("format" = Option<TableFormat>, Query, description = "Format; otherwise by `Accept`, JSON by default")),
    responses((status = 200, description = "The lines",
            content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn search_logs(
    backend: Backend,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (query, format, warnings) = NamedQuery::parse(query.as_deref().unwrap_or_default(), &headers, DEFAULT_ROWS)?;
    let table = (backend.tables.search_logs)(caller.tenant.clone(), query, format).await?;
    Ok(with_warnings(format.response(table), warnings))
}

/// The spans of a trace, by start time.
#[utoipa::path(
    get, path = "/api/v1/traces/{id}", operation_id = "getTrace", tag = "traces",
    params(("id" = String, Path, description = "Trace id in hexadecimal digits; leading zeros may be cut"),
        ("limit" = Option<u32>, Query, description = "Maximum number of spans; at most 10000, the default"),
        ("format" = Option<TableFormat>, Query, description = "Format; otherwise by `Accept`, JSON by default")),
    responses((status = 200, description = "The spans",
            content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn show_trace(
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
