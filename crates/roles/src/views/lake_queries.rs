//! Queries over the tables: SQL, named queries, log search and table usage.

use std::sync::Arc;

use wardroom_api::{NamedQuery, TableFormat, TableUsageView, TablesBackend};
use wardroom_domain::TenantId;
use wardroom_edge::{Problem, Status};
use wardroom_lake::{LogFilter, NAMED_QUERIES, OutputFormat, QueryEngine, QueryError, QueryParameters, TableUsage};
use wardroom_pipeline::lake::lake_state::LakeState;

use crate::clock;

/// Queries over the tables for the API.
#[derive(Clone)]
pub(crate) struct LakeQueries {
    /// The query engine, if the tables are open.
    pub(crate) engine: Option<Arc<QueryEngine>>,
    /// State of the lake, for the reason if they are not.
    pub(crate) lake: LakeState,
}

impl LakeQueries {
    /// Builds the closures of the API.
    pub(crate) fn backend(self) -> TablesBackend {
        let (sql, usage, named, logs) = (self.clone(), self.clone(), self.clone(), self);
        TablesBackend {
            sql: Arc::new(move |tenant, query, format| {
                let queries = sql.clone();
                Box::pin(async move { queries.run_sql(&tenant, &query, format).await })
            }),
            usage: Arc::new(move |tenant| {
                let queries = usage.clone();
                Box::pin(async move { queries.table_usage(&tenant).await })
            }),
            named_queries: NAMED_QUERIES.map(|named| (named.name, named.sql)).into(),
            run_named_query: Arc::new(move |tenant, query, format| {
                let queries = named.clone();
                Box::pin(async move { queries.run_named(&tenant, query, format).await })
            }),
            search_logs: Arc::new(move |tenant, query, format| {
                let queries = logs.clone();
                Box::pin(async move { queries.search_logs(&tenant, query, format).await })
            }),
        }
    }

    fn engine(&self) -> Result<&QueryEngine, Problem> {
        let missing = || match self.lake.unavailable_reason() {
            Some(reason) => Problem::unavailable("lake_unavailable", reason),
            None => Problem::new(Status::NOT_FOUND, "lake_off", "there are no tables: lake.enabled is false"),
        };
        self.engine.as_deref().ok_or_else(missing)
    }

    /// Returns a tenant's usage of each table.
    async fn table_usage(&self, tenant: &TenantId) -> Result<Vec<TableUsageView>, Problem> {
        let found = self.engine()?.table_usage(tenant, clock::now()).await;
        let view =
            |TableUsage { table, files, rows, bytes, outdated }| TableUsageView { table, files, rows, bytes, outdated };
        Ok(found.map_err(|error| lake_query_problem(error.into()))?.into_iter().map(view).collect())
    }

    /// Runs a SQL query over the rows of a tenant.
    async fn run_sql(&self, tenant: &TenantId, query: &str, format: TableFormat) -> Result<Vec<u8>, Problem> {
        self.engine()?.run_sql(tenant, query, output_format(format)).await.map_err(lake_query_problem)
    }

    /// Runs a named query.
    async fn run_named(&self, tenant: &TenantId, query: NamedQuery, format: TableFormat) -> Result<Vec<u8>, Problem> {
        let NamedQuery { name, start, end, service, trace, error_rate, p99_ms, limit, .. } = query;
        let parameters = QueryParameters { start, end, service, trace, error_rate, p99_ms, limit };
        let result = self.engine()?.run_named(tenant, &name, parameters, output_format(format)).await;
        result.map_err(lake_query_problem)
    }

    /// Returns the log lines that match a filter, newest first.
    async fn search_logs(&self, tenant: &TenantId, query: NamedQuery, format: TableFormat) -> Result<Vec<u8>, Problem> {
        let filter = LogFilter::parse(&query.filter)
            .map_err(|error| Problem::bad_request("bad_filter", format!("parameter query: {error}")))?;
        let range = (query.start, query.end);
        let result = self.engine()?.search_logs(tenant, filter, range, query.limit, output_format(format)).await;
        result.map_err(lake_query_problem)
    }
}

const fn output_format(format: TableFormat) -> OutputFormat {
    match format {
        TableFormat::Pretty => OutputFormat::Pretty,
        TableFormat::Json => OutputFormat::Json,
        TableFormat::Csv => OutputFormat::Csv,
        TableFormat::Arrow => OutputFormat::Arrow,
    }
}

/// Converts an error of a query over the tables.
pub(super) fn lake_query_problem(error: QueryError) -> Problem {
    let detail = error.to_string();
    match error {
        QueryError::Invalid(_) => Problem::bad_request("bad_query", detail),
        QueryError::Refused(_) => Problem::bad_request("not_a_query", detail),
        // 422, as in Prometheus for a query that is valid and cannot be executed.
        QueryError::Failed(_) => Problem::new(Status::UNPROCESSABLE_ENTITY, "query_failed", detail),
        QueryError::TooLarge(_) => Problem::new(Status::UNPROCESSABLE_ENTITY, "query_too_large", detail),
        QueryError::Timeout(_) => Problem::unavailable("query_timeout", detail),
        QueryError::Lake(_) => Problem::unavailable("lake_unavailable", detail),
    }
}
