//! SQL queries with a name, such as `detect_anomalies`.
//!
//! Parameters are bound to the plan as values, never inserted into the text.

use deltalake_core::datafusion::common::ScalarValue;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::execution::context::SessionContext;
use deltalake_core::datafusion::prelude::DataFrame;
use wardroom_domain::{TenantId, Timestamp};

use crate::format::row_buffer::micros;
use crate::read::sql_engine::{OutputFormat, QueryEngine, QueryError};

/// A query with a name.
#[derive(Clone, Copy, Debug)]
pub struct NamedQuery {
    /// Name.
    pub name: &'static str,
    /// SQL text; its comment says what it returns.
    pub sql: &'static str,
}

/// All named queries.
pub const NAMED_QUERIES: [NamedQuery; 4] = [
    NamedQuery { name: "detect_anomalies", sql: include_str!("named_queries/detect_anomalies.sql") },
    NamedQuery { name: "correlate_error_logs", sql: include_str!("named_queries/correlate_error_logs.sql") },
    NamedQuery { name: "check_recent_deployments", sql: include_str!("named_queries/check_recent_deployments.sql") },
    NamedQuery { name: "trace", sql: include_str!("named_queries/trace.sql") },
];

/// Parameters of a named query.
#[derive(Clone, Debug)]
pub struct QueryParameters {
    /// Start of the time range, inclusive.
    pub start: Timestamp,
    /// End of the time range, exclusive.
    pub end: Timestamp,
    /// Limits the result to one service.
    pub service: Option<String>,
    /// Trace id, for `trace`.
    pub trace: Option<String>,
    /// Services with a higher share of failed requests are returned, 0 to 1.
    pub error_rate: f64,
    /// Services with a higher 99th percentile of the duration are returned, in ms.
    pub p99_ms: f64,
    /// Maximum number of rows.
    pub limit: u32,
}

impl QueryEngine {
    /// Runs a named query.
    ///
    /// # Errors
    /// Returns an error if the name is unknown; see [`QueryError`].
    pub async fn run_named(
        &self,
        tenant: &TenantId,
        name: &str,
        parameters: QueryParameters,
        format: OutputFormat,
    ) -> Result<Vec<u8>, QueryError> {
        let Some(named) = NAMED_QUERIES.iter().find(|named| named.name == name) else {
            let names: Vec<_> = NAMED_QUERIES.iter().map(|named| named.name).collect();
            return Err(QueryError::Invalid(format!("unknown query {name:?}; known queries are {}", names.join(", "))));
        };
        let text = |text: Option<String>| ScalarValue::Utf8(text);
        let timestamp = |at: Timestamp| ScalarValue::TimestampMicrosecond(Some(micros(at)), Some("UTC".into()));
        let values = vec![
            ("start", timestamp(parameters.start)),
            ("end", timestamp(parameters.end)),
            ("service", text(parameters.service)),
            ("trace", text(parameters.trace)),
            ("error_rate", ScalarValue::Float64(Some(parameters.error_rate))),
            ("p99_ms", ScalarValue::Float64(Some(parameters.p99_ms))),
            ("limit", ScalarValue::Int64(Some(parameters.limit.into()))),
        ];
        let values: Vec<_> = values.into_iter().filter(|(name, _)| named.sql.contains(&format!("${name}"))).collect();
        let plan = async move |session: SessionContext| -> Result<DataFrame, DataFusionError> {
            session.sql(named.sql).await?.with_param_values(values)
        };
        self.run_trusted(tenant, plan, format).await
    }
}
