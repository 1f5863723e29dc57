//! `POST /api/v1/sql`: runs a read-only SQL query over the caller's tenant.

use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::TableErrors;
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, TableFormat, TextBody, check_object};
use crate::warnings::with_warnings;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().post(
        "/api/v1/sql",
        Access::Read,
        move |caller: Caller, parameters: QueryParameters<SqlParameters>, headers: HeaderMap, body: TextBody| {
            run_sql(backend.clone(), caller, parameters, headers, body)
        },
    )
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SqlParameters {
    /// Format; otherwise by `Accept`, JSON by default.
    #[param(value_type = Option<TableFormat>)]
    format: Option<String>,
}

/// The JSON form of the request body; any other content type is SQL text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    /// The query.
    query: String,
}

/// Runs a read-only SQL query over the tables of the caller's tenant.
#[utoipa::path(
    post, path = "/api/v1/sql", operation_id = "runSql", tag = "tables",
    params(SqlParameters),
    request_body(description = "The query, as text or JSON",
        content((SqlRequest = "application/json"), (String = "text/plain"))),
    responses((status = 200, description = "The rows",
            content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn run_sql(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<SqlParameters>,
    headers: HeaderMap,
    TextBody(body): TextBody,
) -> Result<Response, Problem> {
    let format = match parameters.format {
        Some(name) => TableFormat::parse(&name)?,
        None => TableFormat::from_accept(&headers),
    };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = if content_type.starts_with("application/json") {
        check_object::<SqlRequest>(&body)?;
        let request: SqlRequest = serde_json::from_str(&body).map_err(|error| {
            Problem::bad_request("bad_body", format!("body: {error}; expected {{\"query\": \"…\"}}"))
        })?;
        request.query
    } else {
        body
    };
    let warning = (backend.tables.missing_samples)(&caller.tenant, &query);
    let table = (backend.tables.sql)(caller.tenant.clone(), query, format).await?;
    Ok(with_warnings(format.response(table), warning.into_iter().collect()))
}
