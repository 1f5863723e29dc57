//! Queries over the tables: SQL, named queries, log search and table usage.

use std::sync::Arc;

use bytes::Bytes;
use wardroom_api::{NamedQuery, TableFormat, TableUsageView, TablesBackend};
use wardroom_bus::Bus;
use wardroom_domain::TenantId;
use wardroom_edge::{Problem, Status};
use wardroom_lake::{DamagedFile, Lake, LogFilter, NAMED_QUERIES, OutputFormat, TableUsage};
use wardroom_pipeline::lake::lake_state::LakeState;
use wardroom_query::{FailureKind, PoolError, Query, QueryParameters, QueryPool};

use crate::clock;

/// Queries over the tables for the API.
#[derive(Clone)]
pub(crate) struct LakeQueries {
    /// The query workers, if the tables are open.
    pub(crate) pool: Option<Arc<QueryPool>>,
    /// State of the lake, for the reason if they are not.
    pub(crate) lake: LakeState,
    /// The bus, for what the tables lack.
    pub(crate) bus: Arc<dyn Bus>,
}

/// Time after which a tenant with too many queries may repeat one, in seconds.
const RETRY_SECONDS: f64 = 1.0;
/// Words of a query that reads samples, in lower case.
const SAMPLE_TABLES: [&str; 2] = ["samples", "metrics"];

impl LakeQueries {
    /// Builds the closures of the API.
    pub(crate) fn backend(self) -> TablesBackend {
        let (sql, usage, named, logs) = (self.clone(), self.clone(), self.clone(), self.clone());
        TablesBackend {
            sql: Arc::new(move |tenant, query, format| {
                let queries = sql.clone();
                Box::pin(async move { queries.run_sql(&tenant, query, format).await })
            }),
            missing_samples: Arc::new(move |_: &TenantId, query: &str| self.missing_samples(query)),
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

    fn tables(&self) -> Result<(&Arc<Lake>, &QueryPool), Problem> {
        let missing = || match self.lake.unavailable_reason() {
            Some(reason) => Problem::unavailable("lake_unavailable", reason),
            None => Problem::new(Status::NOT_FOUND, "lake_off", "there are no tables: lake.enabled is false"),
        };
        let lake = self.lake.tables().map(|tables| &tables.lake);
        lake.zip(self.pool.as_deref()).ok_or_else(missing)
    }

    async fn run(&self, tenant: &TenantId, query: Query, format: TableFormat) -> Result<Bytes, Problem> {
        let (lake, pool) = self.tables()?;
        let result = pool.run(tenant, query, output_format(format)).await;
        if let Err(PoolError::Query { kind: FailureKind::Damaged, detail }) = &result
            && let Some(file) = DamagedFile::parse(detail)
        {
            // Found in the worker's process: readiness and maintenance of this one have to know.
            lake.add_damaged_file(&file);
        }
        result.map_err(lake_query_problem)
    }

    /// Returns what to know about a query that reads samples while the tables lack the newest ones. Unlike log lines,
    /// spans and events, samples are in the tables only once they are flushed.
    fn missing_samples(&self, query: &str) -> Option<String> {
        let progress = &self.lake.tables()?.samples_progress;
        let lag = self.bus.end_offset().saturating_sub(progress.committed_offset());
        let query = query.to_ascii_lowercase();
        if lag == 0 || !SAMPLE_TABLES.iter().any(|table| query.contains(table)) {
            return None;
        }
        let newest = match progress.complete_to() {
            Some(at) => format!("samples that arrived after {at} are"),
            None => format!("samples of the newest {lag} requests are"),
        };
        Some(format!("{newest} not in the tables yet (lake.flush-seconds); GET /api/v1/samples returns them"))
    }

    /// Returns a tenant's usage of each table.
    async fn table_usage(&self, tenant: &TenantId) -> Result<Vec<TableUsageView>, Problem> {
        let found = self.tables()?.0.table_usage(tenant, clock::now()).await;
        let view =
            |TableUsage { table, files, rows, bytes, outdated }| TableUsageView { table, files, rows, bytes, outdated };
        Ok(found.map_err(|error| lake_problem(&error))?.into_iter().map(view).collect())
    }

    /// Runs a SQL query over the rows of a tenant.
    async fn run_sql(&self, tenant: &TenantId, query: String, format: TableFormat) -> Result<Bytes, Problem> {
        self.run(tenant, Query::Sql(query), format).await
    }

    /// Runs a named query.
    async fn run_named(&self, tenant: &TenantId, query: NamedQuery, format: TableFormat) -> Result<Bytes, Problem> {
        let NamedQuery { name, start, end, service, trace, error_rate, p99_ms, limit, .. } = query;
        let (start_nanos, end_nanos) = (start.nanos(), end.nanos());
        let parameters = QueryParameters { start_nanos, end_nanos, service, trace, error_rate, p99_ms, limit };
        self.run(tenant, Query::Named { name, parameters }, format).await
    }

    /// Returns the log lines that match a filter, newest first.
    async fn search_logs(&self, tenant: &TenantId, query: NamedQuery, format: TableFormat) -> Result<Bytes, Problem> {
        LogFilter::parse(&query.filter)
            .map_err(|error| Problem::bad_request("bad_filter", format!("parameter query: {error}")))?;
        let NamedQuery { filter, start, end, limit, .. } = query;
        let (start_nanos, end_nanos) = (start.nanos(), end.nanos());
        self.run(tenant, Query::Logs { filter, start_nanos, end_nanos, limit }, format).await
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
pub(crate) fn lake_query_problem(error: PoolError) -> Problem {
    let detail = error.to_string();
    let too_many = |code, detail| Problem::new(Status::TOO_MANY_REQUESTS, code, detail).retry_after(RETRY_SECONDS);
    match error {
        PoolError::Query { kind, detail } => failure_problem(kind, detail),
        PoolError::Crashed => Problem::new(Status::UNPROCESSABLE_ENTITY, "query_crashed", detail),
        PoolError::Killed(_) => Problem::unavailable("query_timeout", detail),
        PoolError::Stopped(_) => Problem::unavailable("query_stopped", detail),
        PoolError::QueueFull(_) => too_many("too_many_queries", detail),
        PoolError::ResultsUnread => too_many("results_unread", detail),
        PoolError::Busy(_) | PoolError::NoWorker | PoolError::Cancelled => {
            Problem::unavailable("queries_unavailable", detail)
        }
    }
}

fn failure_problem(kind: FailureKind, detail: String) -> Problem {
    match kind {
        FailureKind::Invalid => Problem::bad_request("bad_query", detail),
        FailureKind::Refused => Problem::bad_request("not_a_query", detail),
        FailureKind::LimitExceeded => Problem::bad_request("query_limit", detail),
        // 422, as in Prometheus for a query that is valid and cannot be executed.
        FailureKind::Failed => Problem::new(Status::UNPROCESSABLE_ENTITY, "query_failed", detail),
        FailureKind::TooLarge => Problem::new(Status::UNPROCESSABLE_ENTITY, "query_too_large", detail),
        FailureKind::Timeout => Problem::unavailable("query_timeout", detail),
        // Not 503: the same query fails until the file is replaced.
        FailureKind::Damaged => Problem::new(Status::INTERNAL_SERVER_ERROR, "lake_damaged", detail),
        FailureKind::Unavailable => Problem::unavailable("lake_unavailable", detail),
    }
}

/// Converts an error of the tables.
fn lake_problem(error: &wardroom_lake::Error) -> Problem {
    let kind = match error {
        wardroom_lake::Error::DamagedFile(_) => FailureKind::Damaged,
        _ => FailureKind::Unavailable,
    };
    failure_problem(kind, error.to_string())
}
