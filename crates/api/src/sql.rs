//! `POST /api/v1/sql`: runs a read-only SQL query over the caller's tenant.

use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
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

#[derive(Debug, Deserialize)]
struct SqlParameters {
    format: Option<String>,
}

/// The JSON form of the request body; any other content type is SQL text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlRequest {
    query: String,
}

async fn run_sql(
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
