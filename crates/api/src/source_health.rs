//! `GET /api/v1/sources`: what arrived from each sender by each protocol, when last, and how much of it was rejected.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_domain::Timestamp;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::TableErrors;
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, TableFormat, parse_time};

/// Maximum number of senders.
const MAX_SOURCES: u32 = 1000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().get("/api/v1/sources", Access::Read, move |caller: Caller, range: QueryParameters<SourceRange>| {
        list(backend.clone(), caller, range)
    })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SourceRange {
    /// Start, inclusive: RFC 3339 or seconds since the epoch; everything that is kept by default.
    since: Option<String>,
}

/// Senders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SourceList {
    /// At most 1000, the one that sent last first.
    sources: Vec<SourceView>,
    /// Always null: there is one page.
    #[schema(required)]
    next: Option<String>,
}

/// What one sender sent by one protocol.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SourceView {
    /// Protocol, such as `remote_write`.
    protocol: String,
    /// Principal of the sender.
    principal: String,
    /// Time of the last accepted request.
    #[schema(format = DateTime)]
    last_at: String,
    /// Accepted requests.
    accepted: i64,
    /// Size of the accepted requests as received, in bytes.
    bytes: i64,
    /// Rejected records.
    rejected: i64,
}

/// What arrived from each sender by each protocol: when last, how much, and how many records were rejected.
///
/// Read from the tables, which are a few seconds behind; requests are kept there as `lake` is configured.
#[utoipa::path(
    get, path = "/api/v1/sources", operation_id = "listSources", tag = "ingest",
    params(SourceRange),
    responses((status = 200, description = "The senders", body = SourceList), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(
    backend: Backend,
    caller: Caller,
    QueryParameters(range): QueryParameters<SourceRange>,
) -> Result<Json<SourceList>, Problem> {
    let since = range.since.map_or(Ok(Timestamp::from_nanos(0)), |text| parse_time("since", &text))?;
    let rows = (backend.tables.sql)(caller.tenant.clone(), sql(since), TableFormat::Json).await?;
    let unreadable = |error: serde_json::Error| Problem::unavailable("unreadable", error.to_string());
    let rows: Vec<Value> = serde_json::from_slice(&rows).map_err(unreadable)?;
    let sources = rows.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(unreadable)?;
    Ok(Json(SourceList { sources, next: None }))
}

fn sql(since: Timestamp) -> String {
    let micros = since.nanos().div_euclid(1000);
    format!(
        "SELECT t.protocol AS protocol, t.principal AS principal, t.last_at AS last_at, t.accepted AS accepted, \
         t.bytes AS bytes, coalesce(q.rejected, 0) AS rejected FROM (\
         SELECT protocol, principal, CAST(max(ts) AS VARCHAR) AS last_at, count(*) AS accepted, \
         CAST(sum(size_bytes) AS BIGINT) AS bytes FROM bronze.telemetry WHERE ts >= to_timestamp_micros({micros}) \
         GROUP BY protocol, principal) t LEFT JOIN (\
         SELECT protocol, principal, CAST(sum(\"last\" - \"first\" + 1) AS BIGINT) AS rejected FROM silver.quarantine \
         WHERE ts >= to_timestamp_micros({micros}) GROUP BY protocol, principal) q \
         ON t.protocol = q.protocol AND t.principal = q.principal \
         ORDER BY last_at DESC, protocol, principal LIMIT {MAX_SOURCES}"
    )
}
