//! Questions about the tables.

use wardroom_api::TableForm;
use wardroom_domain::TenantId;
use wardroom_edge::Problem;
use wardroom_lake::{Form, Queries, QueryError};

use super::{not_found, status};

/// The answer to a query over one tenant's rows.
pub(crate) async fn sql(
    queries: Option<&Queries>,
    tenant: &TenantId,
    query: &str,
    form: TableForm,
) -> Result<Vec<u8>, Problem> {
    let off = || Problem::new(not_found(), "lake_off", "nothing is kept in tables: lake.enabled is false");
    let form = match form {
        TableForm::Pretty => Form::Pretty,
        TableForm::Json => Form::Json,
        TableForm::Csv => Form::Csv,
        TableForm::Arrow => Form::Arrow,
    };
    let answered = queries.ok_or_else(off)?.ask(tenant, query, form).await;
    answered.map_err(|error| {
        let detail = error.to_string();
        match error {
            QueryError::Invalid(_) => Problem::bad_request("bad_query", detail),
            QueryError::Refused(_) => Problem::bad_request("not_a_query", detail),
            // As Prometheus tells what can be understood and not be carried out.
            QueryError::Failed(_) => Problem::new(status(422), "query_failed", detail),
            QueryError::TooLarge(_) => Problem::new(status(422), "query_too_large", detail),
            QueryError::TooLong(_) => Problem::unavailable("query_timeout", detail),
            QueryError::Lake(_) => Problem::unavailable("lake_unavailable", detail),
        }
    })
}
