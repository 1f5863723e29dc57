//! Questions in SQL.
//!
//! ```text
//! text ─► plan over views of one tenant ─► only reads? ─► run within memory and time ─► table, JSON, CSV or Arrow
//! ```
//!
//! Problem: people ask what nobody foresaw, and one question must show no other tenant's rows, write nothing, and
//! take neither the memory nor the processor that telemetry needs. Model: each question gets a session of its own, in which
//! every table is a view whose plan keeps one tenant's rows; nothing is put into the text. A plan that is more than
//! a query is refused before it runs. Questions share one thread and one pool of memory, never spill to disk, and end
//! with whoever asked.

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
use deltalake_core::datafusion::physical_plan::execute_stream;
use deltalake_core::datafusion::prelude::{DataFrame, col, lit};
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::task::JoinHandle;
use wardroom_domain::{TenantId, Timestamp};

use crate::{Error, Holding, Lake};

/// The view with values, names and labels, and the columns of seed 000's Silver.
const METRICS: &str = include_str!("metrics.sql");

/// Priority of the threads of questions, of a hundred: as a niceness 10.
const NICE: u8 = 25;

/// Limits of questions.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Memory that all running queries share, in bytes. Default 256 MiB. Since 0.1.
    pub memory_bytes: usize,
    /// A query that takes longer is stopped, in seconds. Default 30. Since 0.1.
    pub seconds: u64,
    /// Rows that one answer may have. Default 100000. Since 0.1.
    pub max_rows: usize,
    /// Queries that run at one time; further ones wait. Default 4. Since 0.1.
    pub concurrent: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, seconds: 30, max_rows: 100_000, concurrent: 4 }
    }
}

/// Parts in which a query reads a table side by side.
const PARTS: usize = 2;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table of text.
    Pretty,
    /// An array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no query, or names what does not exist.
    #[error("{0}")]
    Invalid(String),
    /// It asks for more than a query may.
    #[error("{0}")]
    Refused(String),
    /// It can be planned and not be carried out.
    #[error("{0}")]
    Failed(String),
    /// It took longer than it may.
    #[error("stopped after {0} s (lake.query.seconds); narrow it by `day`, `ts` or `series_id`")]
    TooLong(u64),
    /// It takes more than it may.
    #[error("{0}")]
    TooLarge(String),
    /// The tables cannot be read now.
    #[error(transparent)]
    Lake(#[from] Error),
}

/// Answers questions.
#[derive(Debug)]
pub struct Queries {
    pub(crate) lake: Arc<Lake>,
    config: QueryConfig,
    environment: Arc<RuntimeEnv>,
    turn: Arc<tokio::sync::Semaphore>,
    /// A thread of their own, so that nobody else waits behind a long one; there until the end.
    threads: Option<tokio::runtime::Runtime>,
}

impl Queries {
    /// Makes a thread and a pool of memory for them.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(lake: Arc<Lake>, config: QueryConfig) -> Result<Self, Error> {
        let threads = tokio::runtime::Builder::new_multi_thread()
            // As many compute as a query has parts. Those that wait for files are not counted: delta-rs has some wait for others of
            // them, and with every place taken by such as wait, all stand still.
            .worker_threads(PARTS)
            .thread_name("query")
            .on_thread_start(step_back)
            .enable_all()
            .build()?;
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let environment = RuntimeEnvBuilder::new().with_memory_limit(config.memory_bytes, 1.0);
        let environment = environment.with_disk_manager_builder(disk).build_arc();
        let environment = environment.map_err(|error| Error::Unavailable(error.to_string()))?;
        let turn = Arc::new(tokio::sync::Semaphore::new(config.concurrent.max(1)));
        Ok(Self { lake, config, environment, turn, threads: Some(threads) })
    }

    /// Answers a question about one tenant's rows. Whoever stops waiting stops the work.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn ask(&self, tenant: &TenantId, text: &str, form: Form) -> Result<Vec<u8>, QueryError> {
        let text = text.to_owned();
        self.run(tenant, async move |session| plan(&session, &text).await, form).await
    }

    /// Answers a question of our own.
    pub(crate) async fn answer<P, F>(&self, tenant: &TenantId, plan: P, form: Form) -> Result<Vec<u8>, QueryError>
    where
        P: FnOnce(SessionContext) -> F + Send + 'static,
        F: Future<Output = Result<DataFrame, DataFusionError>> + Send + 'static,
    {
        self.run(tenant, async move |session| plan(session).await.map_err(failed), form).await
    }

    async fn run<P, F>(&self, tenant: &TenantId, plan: P, form: Form) -> Result<Vec<u8>, QueryError>
    where
        P: FnOnce(SessionContext) -> F + Send + 'static,
        F: Future<Output = Result<DataFrame, QueryError>> + Send + 'static,
    {
        let gone = || Error::Unavailable("the server is stopping".into());
        let (lake, environment, turn) = (Arc::clone(&self.lake), Arc::clone(&self.environment), Arc::clone(&self.turn));
        let (tenant, limits) = (tenant.clone(), (self.config.max_rows, self.config.memory_bytes));
        let work = async move {
            let _turn = turn.acquire().await.map_err(|_| gone())?;
            let session = session(&lake, environment, &tenant).await?;
            let context = session.task_ctx();
            let (schema, batches) = collect(plan(session).await?, context, limits).await?;
            write(form, &schema, &batches)
        };
        let threads = self.threads.as_ref().ok_or_else(gone)?;
        let mut task = Stopped(threads.spawn(work));
        // Not in the work itself, which may not look up for a while.
        let limit = self.config.seconds;
        let done = tokio::time::timeout(Duration::from_secs(limit), &mut task.0).await;
        done.map_err(|_| QueryError::TooLong(limit))?.map_err(|error| QueryError::Failed(error.to_string()))?
    }

    /// See [`Lake::holdings`].
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn holdings(&self, tenant: &TenantId, now: Timestamp) -> Result<Vec<Holding>, Error> {
        self.lake.holdings(tenant, now).await
    }

    /// Queries that are at work.
    pub fn running(&self) -> usize {
        self.config.concurrent.max(1).saturating_sub(self.turn.available_permits())
    }
}

/// Telemetry that comes in, and whoever waits for its acknowledgement, goes first: nice 10, as `nice` alone gives.
fn step_back() {
    let set = ThreadPriorityValue::try_from(NICE).map(ThreadPriority::Crossplatform).map(set_current_thread_priority);
    if !matches!(set, Ok(Ok(()))) {
        tracing::warn!(?set, "questions have the same share of the processors as what comes in");
    }
}

/// A session that sees one tenant's rows.
async fn session(lake: &Lake, environment: Arc<RuntimeEnv>, tenant: &TenantId) -> Result<SessionContext, Error> {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("wardroom", "silver")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(PARTS);
    let session = SessionContext::new_with_config_rt(config, environment);
    let (catalog, silver) = (Arc::new(MemoryCatalogProvider::new()), Arc::new(MemorySchemaProvider::new()));
    let (bronze, gold) = (Arc::new(MemorySchemaProvider::new()), Arc::new(MemorySchemaProvider::new()));
    let unseen = |error: DataFusionError| Error::Unavailable(error.to_string());
    catalog.register_schema("silver", Arc::<MemorySchemaProvider>::clone(&silver)).map_err(unseen)?;
    catalog.register_schema("bronze", Arc::<MemorySchemaProvider>::clone(&bronze)).map_err(unseen)?;
    catalog.register_schema("gold", Arc::<MemorySchemaProvider>::clone(&gold)).map_err(unseen)?;
    session.register_catalog("wardroom", catalog);
    let (providers, pending) = lake.providers().await?;
    for (name, provider) in providers {
        let all = session.read_table(provider).map_err(unseen)?;
        let mut own = all.filter(col("tenant").eq(lit(tenant.as_str()))).map_err(unseen)?;
        let waiting = pending.of(name, tenant)?;
        if !waiting.is_empty() {
            let waiting = session.read_batches(waiting).map_err(unseen)?;
            own = own.union_by_name(waiting).map_err(unseen)?;
        }
        let (layer, name) = name.split_once('.').unwrap_or(("silver", name));
        let schema = match layer {
            "bronze" => &bronze,
            "gold" => &gold,
            _ => &silver,
        };
        schema.register_table(name.to_owned(), own.into_view()).map_err(unseen)?;
    }
    let metrics = session.sql(METRICS).await.map_err(unseen)?;
    silver.register_table("metrics".to_owned(), metrics.into_view()).map_err(unseen)?;
    Ok(session)
}

impl Drop for Queries {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Work that ends with whoever waits for it.
struct Stopped<T>(JoinHandle<T>);

impl<T> Drop for Stopped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn plan(session: &SessionContext, text: &str) -> Result<DataFrame, QueryError> {
    let invalid = |error: DataFusionError| QueryError::Invalid(error.strip_backtrace());
    let plan = session.state().create_logical_plan(text).await.map_err(invalid)?;
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let refused = |error: DataFusionError| {
        QueryError::Refused(format!(
            "only queries are answered (SELECT, WITH, EXPLAIN, SHOW): {}",
            error.strip_backtrace()
        ))
    };
    reads.verify_plan(&plan).map_err(refused)?;
    session.execute_logical_plan(plan).await.map_err(invalid)
}

/// Runs a plan, and stops where the answer grows too long.
async fn collect(
    frame: DataFrame,
    context: Arc<TaskContext>,
    (rows, bytes): (usize, usize),
) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    let plan = frame.create_physical_plan().await.map_err(failed)?;
    let mut stream = execute_stream(plan, context).map_err(failed)?;
    let (schema, mut batches, mut count, mut size) = (stream.schema(), Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        count += batch.num_rows();
        if count > rows {
            let detail =
                format!("the answer has more than {rows} rows (lake.query.max-rows); add a LIMIT or aggregate");
            return Err(QueryError::TooLarge(detail));
        }
        size += batch.get_array_memory_size();
        if size > bytes {
            let detail =
                format!("the answer is larger than {bytes} bytes (lake.query.memory-bytes); ask for fewer columns");
            return Err(QueryError::TooLarge(detail));
        }
        batches.push(batch);
    }
    Ok((schema, batches))
}

fn failed(error: DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(detail) => {
            let remedy = "narrow it by `day` or `ts`, or raise lake.query.memory-bytes";
            QueryError::TooLarge(format!("it needs more memory than queries may take; {remedy}: {detail}"))
        }
        _ => QueryError::Failed(error.strip_backtrace()),
    }
}

fn write(form: Form, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, QueryError> {
    let unwritten = |error: ArrowError| QueryError::Failed(error.to_string());
    let mut out = Vec::new();
    match form {
        Form::Pretty => {
            let empty = [RecordBatch::new_empty(Arc::clone(schema))];
            let batches = if batches.is_empty() { &empty } else { batches };
            out = pretty_format_batches(batches).map_err(unwritten)?.to_string().into_bytes();
            out.push(b'\n');
        }
        Form::Json => {
            let builder = json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, json::writer::JsonArray>(&mut out);
            writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(unwritten)?;
            writer.finish().map_err(unwritten)?;
            if out.is_empty() {
                out.extend(b"[]");
            }
        }
        Form::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut out);
            writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema))).map_err(unwritten)?).map_err(unwritten)?;
            for batch in batches {
                writer.write(&flat(batch).map_err(unwritten)?).map_err(unwritten)?;
            }
        }
        Form::Arrow => {
            let mut writer = ipc::writer::StreamWriter::try_new(&mut out, schema).map_err(unwritten)?;
            for batch in batches {
                writer.write(batch).map_err(unwritten)?;
            }
            writer.finish().map_err(unwritten)?;
        }
    }
    Ok(out)
}

/// The same rows with lists and maps as text: CSV has no place for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let options = FormatOptions::default();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let column: ArrayRef = if column.data_type().is_nested() {
            let shown = ArrayFormatter::try_new(column, &options)?;
            let text = |at: usize| column.is_valid(at).then(|| shown.value(at).to_string());
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
