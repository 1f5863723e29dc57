//! Runs SQL queries over one tenant's rows.
//!
//! ```text
//! text ─► limits ─► plan over one tenant's views ─► read-only? ─► run within memory and time limits ─► table, JSON, …
//! ```
//!
//! Problem: queries are arbitrary, and must not see other tenants' rows, write anything, or take memory or CPU that
//! ingestion needs. Model: each query gets its own session in which every table is a view with a filter on the tenant
//! in its plan; nothing is inserted into the text. A statement that is too large or too deep is refused before it is
//! planned (`statement_text`, `statement_limits`), and a plan that is more than a query before it runs. A session has
//! only functions whose result is bounded (`functions`). Queries share a few threads of low priority and one memory
//! pool, never spill to disk, and are cancelled when the caller stops waiting.

mod bounded_function;
mod column_casts;
mod concat_planner;
mod error_text;
mod event_views;
mod functions;
mod statement_limits;
mod statement_text;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use deltalake_core::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use deltalake_core::arrow::datatypes::SchemaRef;
use deltalake_core::arrow::error::ArrowError;
use deltalake_core::arrow::util::display::{ArrayFormatter, FormatOptions};
use deltalake_core::arrow::util::pretty::pretty_format_batches;
use deltalake_core::arrow::{csv, ipc, json};
use deltalake_core::datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider,
};
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::execution::TaskContext;
use deltalake_core::datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use deltalake_core::datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use deltalake_core::datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use deltalake_core::datafusion::execution::session_state::SessionStateBuilder;
use deltalake_core::datafusion::physical_plan::execute_stream;
use deltalake_core::datafusion::prelude::{DataFrame, col, lit};
use futures_util::StreamExt;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::task::JoinHandle;
use wardroom_domain::{TenantId, Timestamp};

use crate::config::QueryConfig;
use crate::damaged_files::DamagedFile;
use crate::error::Error;
use crate::format::table_schemas::{DEPLOYMENTS, DEPLOYMENTS_VIEW, EVENTS};
use crate::lake::Lake;
use crate::maintain::table_usage::TableUsage;

use self::bounded_function::ResultTooLarge;
use self::column_casts::cast_to_table;
use self::error_text::{describe, describe_arrow_error};
use self::functions::with_allowed_functions;
use self::statement_limits::check_statement;
use self::statement_text::check_text;

/// The view `silver.metrics`: samples with their name, value and labels.
const METRICS_VIEW: &str = include_str!("metrics_view.sql");

/// Priority of query threads, 0 to 99; corresponds to niceness 10.
const QUERY_THREAD_PRIORITY: u8 = 25;

/// Rules that move accesses of maps and structs towards the table. DataFusion 55 fails with an ambiguous column name
/// where they meet the union of files and unflushed rows.
const FAULTY_OPTIMIZER_RULES: [&str; 2] = ["extract_leaf_expressions", "push_down_leaf_projections"];

/// Threads of queries, and partitions in which a query reads a table.
const QUERY_THREADS: usize = 2;

/// Stack of a query thread in bytes, for statements at the limits of `statement_limits`: planning one recurses over it.
/// Only what is used takes memory.
const QUERY_STACK_BYTES: usize = 8 << 20;

/// Format of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// Text table.
    Pretty,
    /// JSON array of objects.
    Json,
    /// CSV with a header.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not a query, or names something unknown.
    #[error("{0}")]
    Invalid(String),
    /// The statement is not read-only.
    #[error("{0}")]
    Refused(String),
    /// The statement is too large or too deep, or calls a function in a way that is not allowed.
    #[error("{0}")]
    LimitExceeded(String),
    /// The query failed while running.
    #[error("{0}")]
    Failed(String),
    /// The query took longer than allowed, in seconds.
    #[error("stopped after {0} s (lake.query.seconds); narrow it by `day`, `ts` or `series_id`")]
    Timeout(u64),
    /// The query needs more memory, or returns more rows, than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The tables cannot be read now.
    #[error(transparent)]
    Lake(#[from] Error),
}

/// Runs queries.
#[derive(Debug)]
pub struct QueryEngine {
    pub(crate) lake: Arc<Lake>,
    config: QueryConfig,
    environment: Arc<RuntimeEnv>,
    /// Separate threads, so that long queries delay nothing else. `Some` until dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl QueryEngine {
    /// Creates the threads and the memory pool of queries.
    ///
    /// # Errors
    /// Returns an error if the threads cannot be created.
    pub fn new(lake: Arc<Lake>, config: QueryConfig) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // As many as a query has partitions. File reads run on blocking threads: delta-rs makes some of them wait
            // for others, and with a bounded number all of them could block.
            .worker_threads(QUERY_THREADS)
            .thread_name("query")
            .thread_stack_size(QUERY_STACK_BYTES)
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let environment = RuntimeEnvBuilder::new().with_memory_limit(config.memory_bytes, 1.0);
        let environment = environment.with_disk_manager_builder(disk).build_arc();
        let environment = environment.map_err(|error| Error::Unavailable(error.to_string()))?;
        // DataFusion has a store of its own for local files, which does not compare them with their checksums.
        environment.register_object_store(&lake.location.root, Arc::clone(&lake.location.store));
        Ok(Self { lake, config, environment, runtime: Some(runtime) })
    }

    /// Runs a query over one tenant's rows. It is cancelled when the future is dropped.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run_sql(&self, tenant: &TenantId, text: &str, format: OutputFormat) -> Result<Vec<u8>, QueryError> {
        let text = text.to_owned();
        self.run_plan(tenant, async move |session| plan_query(&session, &text).await, format).await
    }

    /// Runs a plan built by this crate.
    pub(crate) async fn run_trusted<P, F>(
        &self,
        tenant: &TenantId,
        plan: P,
        format: OutputFormat,
    ) -> Result<Vec<u8>, QueryError>
    where
        P: FnOnce(SessionContext) -> F + Send + 'static,
        F: Future<Output = Result<DataFrame, DataFusionError>> + Send + 'static,
    {
        self.run_plan(tenant, async move |session| plan(session).await.map_err(execution_error), format).await
    }

    async fn run_plan<P, F>(&self, tenant: &TenantId, plan: P, format: OutputFormat) -> Result<Vec<u8>, QueryError>
    where
        P: FnOnce(SessionContext) -> F + Send + 'static,
        F: Future<Output = Result<DataFrame, QueryError>> + Send + 'static,
    {
        let shutting_down = || Error::Unavailable("the server is shutting down".into());
        let (lake, environment) = (Arc::clone(&self.lake), Arc::clone(&self.environment));
        let (tenant, limits) = (tenant.clone(), (self.config.max_rows, self.config.memory_bytes));
        let max_bytes = self.config.max_bytes;
        let work = async move {
            let session = session(&lake, environment, &tenant).await?;
            let context = session.task_ctx();
            let (schema, batches) = collect(plan(session).await?, context, limits).await?;
            encode_output(format, &schema, &batches, max_bytes)
        };
        let runtime = self.runtime.as_ref().ok_or_else(shutting_down)?;
        let mut task = AbortOnDrop(runtime.spawn(work));
        // Outside of the task, which may not yield for a while.
        let limit = self.config.seconds;
        let result = tokio::time::timeout(Duration::from_secs(limit), &mut task.0).await;
        let result = result.map_err(|_| QueryError::Timeout(limit))?;
        result.map_err(|error| QueryError::Failed(error.to_string()))?.map_err(|error| self.name_damaged_file(error))
    }

    /// Returns the error of the damaged file that a query failed on: DataFusion turns that of a footer into text.
    fn name_damaged_file(&self, error: QueryError) -> QueryError {
        let QueryError::Failed(text) = &error else { return error };
        let file = self.lake.damaged_files().into_iter().find(|file| text.contains(&file.to_string()));
        file.map_or(error, |file| Error::from(file).into())
    }

    /// See [`Lake::table_usage`].
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn table_usage(&self, tenant: &TenantId, now: Timestamp) -> Result<Vec<TableUsage>, Error> {
        self.lake.table_usage(tenant, now).await
    }

    /// Returns whether no query is in progress, not even one that was cancelled and does not yield.
    pub fn is_idle(&self) -> bool {
        self.runtime.as_ref().is_none_or(|runtime| runtime.metrics().num_alive_tasks() == 0)
    }
}

/// Lowers the priority of the thread to niceness 10: ingestion and its acknowledgements go first.
fn lower_priority() {
    let set = ThreadPriorityValue::try_from(QUERY_THREAD_PRIORITY)
        .map(ThreadPriority::Crossplatform)
        .map(set_current_thread_priority);
    if !matches!(set, Ok(Ok(()))) {
        tracing::warn!(?set, "lowering the priority of query threads failed");
    }
}

/// Creates a session that sees one tenant's rows.
async fn session(lake: &Lake, environment: Arc<RuntimeEnv>, tenant: &TenantId) -> Result<SessionContext, Error> {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("wardroom", "silver")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .set_bool("datafusion.execution.enable_recursive_ctes", false)
        .with_target_partitions(QUERY_THREADS);
    let state = SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(environment);
    let session = SessionContext::new_with_state(with_allowed_functions(state).build());
    for rule in FAULTY_OPTIMIZER_RULES {
        session.remove_optimizer_rule(rule);
    }
    let (catalog, silver) = (Arc::new(MemoryCatalogProvider::new()), Arc::new(MemorySchemaProvider::new()));
    let (bronze, gold) = (Arc::new(MemorySchemaProvider::new()), Arc::new(MemorySchemaProvider::new()));
    let session_error = |error: DataFusionError| Error::Unavailable(error.to_string());
    catalog.register_schema("silver", Arc::<MemorySchemaProvider>::clone(&silver)).map_err(session_error)?;
    catalog.register_schema("bronze", Arc::<MemorySchemaProvider>::clone(&bronze)).map_err(session_error)?;
    catalog.register_schema("gold", Arc::<MemorySchemaProvider>::clone(&gold)).map_err(session_error)?;
    session.register_catalog("wardroom", catalog);
    let (providers, pending) = lake.providers().await?;
    let (mut events, mut former_deployments) = (None, None);
    for (name, provider) in providers {
        let all = session.read_table(provider).map_err(session_error)?;
        let mut view = all.filter(col("tenant").eq(lit(tenant.as_str()))).map_err(session_error)?;
        let pending_batches = pending.batches(name, tenant)?;
        if !pending_batches.is_empty() {
            let pending_rows = session.read_batches(pending_batches).map_err(session_error)?;
            let pending_rows = cast_to_table(pending_rows, view.schema()).map_err(session_error)?;
            view = view.union_by_name(pending_rows).map_err(session_error)?;
        }
        if name == DEPLOYMENTS.name {
            former_deployments = Some(view);
            continue;
        }
        if name == EVENTS.name {
            events = Some(view.clone());
        }
        let (layer, name) = name.split_once('.').unwrap_or(("silver", name));
        let schema = match layer {
            "bronze" => &bronze,
            "gold" => &gold,
            _ => &silver,
        };
        schema.register_table(name.to_owned(), view.into_view()).map_err(session_error)?;
    }
    if let Some(deployments) = event_views::deployments(events, former_deployments).map_err(session_error)? {
        silver.register_table(DEPLOYMENTS_VIEW.to_owned(), deployments.into_view()).map_err(session_error)?;
    }
    let metrics = session.sql(METRICS_VIEW).await.map_err(session_error)?;
    silver.register_table("metrics".to_owned(), metrics.into_view()).map_err(session_error)?;
    Ok(session)
}

impl Drop for QueryEngine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Aborts the task when dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn plan_query(session: &SessionContext, text: &str) -> Result<DataFrame, QueryError> {
    let invalid = |error: DataFusionError| QueryError::Invalid(describe(&error));
    check_text(text).map_err(QueryError::LimitExceeded)?;
    let state = session.state();
    let statement = state.sql_to_statement(text, &state.config().options().sql_parser.dialect).map_err(invalid)?;
    check_statement(&statement).map_err(QueryError::LimitExceeded)?;
    let plan = state.statement_to_plan(statement).await.map_err(invalid)?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    // Its error names variants of the plan.
    let refused = |_| QueryError::Refused("only queries are allowed: SELECT, WITH, EXPLAIN, SHOW".to_owned());
    read_only.verify_plan(&plan).map_err(refused)?;
    session.execute_logical_plan(plan).await.map_err(invalid)
}

/// Runs a plan, and fails once the result grows too large.
async fn collect(
    frame: DataFrame,
    context: Arc<TaskContext>,
    (max_rows, max_bytes): (usize, usize),
) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    let plan = frame.create_physical_plan().await.map_err(execution_error)?;
    let mut stream = execute_stream(plan, context).map_err(execution_error)?;
    let (schema, mut batches, mut count, mut size) = (stream.schema(), Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(execution_error)?;
        count += batch.num_rows();
        if count > max_rows {
            let detail =
                format!("the result has more than {max_rows} rows (lake.query.max-rows); add a LIMIT or aggregate");
            return Err(QueryError::TooLarge(detail));
        }
        size += batch.get_array_memory_size();
        if size > max_bytes {
            let detail =
                format!("the result is larger than {max_bytes} bytes (lake.query.memory-bytes); ask for fewer columns");
            return Err(QueryError::TooLarge(detail));
        }
        batches.push(batch);
    }
    Ok((schema, batches))
}

fn execution_error(error: DataFusionError) -> QueryError {
    if let Some(file) = DamagedFile::cause_of(&error) {
        return Error::from(file.clone()).into();
    }
    if let Some(cause) = ResultTooLarge::cause_of(&error) {
        return QueryError::TooLarge(cause.to_string());
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(detail) => {
            let remedy = "narrow it by `day` or `ts`, or raise lake.query.memory-bytes";
            QueryError::TooLarge(format!("the query needs more memory than allowed; {remedy}: {detail}"))
        }
        _ => QueryError::Failed(describe(&error)),
    }
}

/// Encodes a result, and fails once it is larger than `max_bytes`: as text, a row can be many times larger.
fn encode_output(
    format: OutputFormat,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    max_bytes: usize,
) -> Result<Vec<u8>, QueryError> {
    let mut out = LimitedBuffer { bytes: Vec::new(), max_bytes, is_full: false };
    let encoded = match format {
        OutputFormat::Pretty => write_pretty(&mut out, schema, batches),
        OutputFormat::Json => write_json(&mut out, batches),
        OutputFormat::Csv => write_csv(&mut out, schema, batches),
        OutputFormat::Arrow => write_arrow(&mut out, schema, batches),
    };
    let encoded = encoded.map_err(|error| match out.is_full {
        true => QueryError::TooLarge(format!(
            "the result is larger than {max_bytes} bytes in this format (lake.query.max-bytes); ask for fewer rows or \
             columns"
        )),
        false => QueryError::Failed(describe_arrow_error(&error)),
    });
    encoded.map(|()| out.bytes)
}

fn write_pretty(out: &mut LimitedBuffer, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let empty = [RecordBatch::new_empty(Arc::clone(schema))];
    let batches = if batches.is_empty() { &empty } else { batches };
    writeln!(out, "{}", pretty_format_batches(batches)?)?;
    Ok(())
}

fn write_json(out: &mut LimitedBuffer, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let builder = json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, json::writer::JsonArray>(&mut *out);
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    drop(writer);
    if out.bytes.is_empty() {
        out.write_all(b"[]")?;
    }
    Ok(())
}

fn write_csv(out: &mut LimitedBuffer, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
    writer.write(&flatten_nested(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
    for batch in batches {
        writer.write(&flatten_nested(batch)?)?;
    }
    Ok(())
}

fn write_arrow(out: &mut LimitedBuffer, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), ArrowError> {
    let mut writer = ipc::writer::StreamWriter::try_new(out, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()
}

/// Bytes up to a limit; writing more is an error.
struct LimitedBuffer {
    bytes: Vec<u8>,
    max_bytes: usize,
    /// Whether a write was refused.
    is_full: bool,
}

impl Write for LimitedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max_bytes {
            self.is_full = true;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Converts lists and maps to text for CSV.
fn flatten_nested(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let options = FormatOptions::default();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let column: ArrayRef = if column.data_type().is_nested() {
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let text = |row: usize| column.is_valid(row).then(|| formatter.value(row).to_string());
            Arc::new((0..column.len()).map(text).collect::<StringArray>())
        } else {
            Arc::clone(column)
        };
        columns.push((field.name(), column));
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}

#[cfg(test)]
mod tests;
