//! `postgres`: diagnostics of a PostgreSQL server, and the end of one statement or one connection.
//!
//! Problem: a transaction that was left open holds its locks until its connection ends, and ending the wrong one
//! loses another's work. Model: the plan names one backend by process id *and* time of start, with its transaction and
//! its statement; all of that is the precondition, and the signal is sent by a statement that compares it once more.
//! Guarantees: no statement of this tool writes (the session is read only), none runs for more than seconds, and data
//! in statements is not shown. PostgreSQL takes no idempotency key; a note of ours says which execution began, and the
//! backend or statement of a plan exists once, so that its end cannot happen twice.

mod backend;
mod literals;
mod postgres_connection;
mod server_views;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Client;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Risk, Run, Tool, ToolError, ToolSpec, operation, parse_arguments};

use self::backend::Backend;
use self::server_views::ListArguments;
use crate::marks::Mark;
use crate::{Context, Declared, SettingError, ToolKind, blocking};

use postgres_connection::PostgresSettings;

/// How often the end of a backend or statement is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a backend may take to react to a signal: it checks for one between two steps of its work.
const REACTION_TIME: Duration = Duration::from_secs(10);
/// Maximum duration of planning or probing.
const READ_DURATION: Duration = Duration::from_secs(15);

/// Sends a signal if the backend still is in its transaction and statement; no row if not.
const SIGNAL: &str = "
    FROM pg_stat_activity
    WHERE pid = $1 AND backend_start::text = $2 AND coalesce(xact_start::text, 'none') = $3
      AND coalesce(query_start::text, 'none') = $4 AND state = $5";

/// The `postgres` tool.
#[derive(Debug)]
pub(crate) struct PostgresTool {
    targets: Vec<Declared<PostgresSettings>>,
    context: Context,
}

/// Arguments of `cancel` and `terminate`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackendArguments {
    /// Process id of the backend, as `activity` and `blocking` show it.
    #[schemars(range(min = 1, max = 4_194_304))]
    pid: i32,
}

/// What is done with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// Its statement ends with an error; transaction and connection stay.
    Cancel,
    /// Its connection ends, its transaction is rolled back.
    Terminate,
}

impl Signal {
    fn of(call: &ToolCall) -> Result<Self, ToolError> {
        match call.operation.as_str() {
            "cancel" => Ok(Self::Cancel),
            "terminate" => Ok(Self::Terminate),
            other => Err(ToolError::Invalid(format!("postgres has no operation {other:?} that changes something"))),
        }
    }

    const fn function(self) -> &'static str {
        match self {
            Self::Cancel => "pg_cancel_backend",
            Self::Terminate => "pg_terminate_backend",
        }
    }

    /// Whether a backend, as it is now, shows the effect on what the precondition describes.
    fn has_taken_effect(self, backend: Option<&Backend>, precondition: &str) -> bool {
        let Some(backend) = backend.filter(|backend| backend.is_that_of(precondition)) else { return true };
        match self {
            Self::Terminate => false,
            Self::Cancel => {
                let statement = format!(" statement={} ", backend.statement_started);
                backend.state != "active" || !precondition.contains(&statement)
            }
        }
    }
}

impl PostgresTool {
    fn settings(&self, call: &ToolCall) -> Result<&PostgresSettings, ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        let declared =
            declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))?;
        Ok(&declared.settings)
    }

    fn backend(&self, call: &ToolCall) -> Result<Option<Backend>, ToolError> {
        let settings = self.settings(call)?;
        let BackendArguments { pid } = parse_arguments(&call.arguments)?;
        blocking::run_local(READ_DURATION, &settings.address(), async || {
            let client = settings.connect(&self.context).await?;
            Backend::read(&client, pid).await.map_err(|error| settings.error(&error))
        })
    }
}

impl ToolKind for PostgresTool {
    const NAME: &'static str = "postgres";
    type Settings = PostgresSettings;

    fn check_settings(settings: &PostgresSettings) -> Result<(), SettingError> {
        settings.password.as_ref().map_or(Ok(()), |password| password.check("password"))
    }

    fn new(targets: Vec<Declared<PostgresSettings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl Tool for PostgresTool {
    fn spec(&self) -> ToolSpec {
        let cancel = "end the running statement of one backend; its transaction fails, its connection stays";
        let terminate = "end the connection of one backend; its transaction is rolled back";
        let mut operations = vec![
            operation::<BackendArguments>("cancel", cancel, Risk::Low, false),
            operation::<BackendArguments>("terminate", terminate, Risk::Medium, false),
        ];
        operations.extend(server_views::operations());
        ToolSpec::new(Self::NAME, "a PostgreSQL server", operations)
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        if server_views::exists(&call.operation) {
            return parse_arguments::<ListArguments>(&call.arguments).map(drop);
        }
        Signal::of(call)?;
        parse_arguments::<BackendArguments>(&call.arguments).map(drop)
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let signal = Signal::of(call)?;
        let backend = self.backend(call)?.ok_or_else(|| {
            let pid = call.arguments.get("pid").cloned().unwrap_or_default();
            ToolError::Invalid(format!("there is no backend {pid}; `activity` lists those that there are"))
        })?;
        if let Some(refusal) = backend.refusal() {
            return Err(ToolError::Invalid(refusal));
        }
        let (diff, blast_radius, risk) = match signal {
            Signal::Cancel if backend.state != "active" => {
                let detail = format!("nothing to cancel: {}; `terminate` ends the connection", backend.description());
                return Err(ToolError::Invalid(detail));
            }
            Signal::Cancel => (
                format!("the statement is cancelled: {}", backend.description()),
                "1 statement, which its client sees as an error",
                Risk::Low,
            ),
            Signal::Terminate => (
                format!("the connection is ended and its transaction rolled back: {}", backend.description()),
                "1 connection, which its client sees as lost",
                Risk::Medium,
            ),
        };
        // How many wait for this backend is not part of the plan: the number changes all the time, and each change
        // would make the plan stale. `blocking` shows it.
        Ok(DryRun {
            diff,
            blast_radius: blast_radius.to_owned(),
            affected: Some(1),
            risk: risk.as_str().to_owned(),
            reversible: false,
            precondition: backend.fingerprint(),
            undo: None,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let signal = Signal::of(call)?;
        let settings = self.settings(call)?;
        let BackendArguments { pid } = parse_arguments(&call.arguments)?;
        let marks = self.context.marks(Self::NAME);
        blocking::run_local(run.timeout, &settings.address(), async || {
            let client = settings.connect(&self.context).await?;
            let convert = |error| settings.error(&error);
            let backend = Backend::read(&client, pid).await.map_err(convert)?;
            let has_begun = marks.get(run.key)?.is_some();
            if has_begun && signal.has_taken_effect(backend.as_ref(), run.precondition) {
                return Ok(Applied::new(
                    Outcome::Applied,
                    format!("{} of backend {pid} was done before", call.operation),
                ));
            }
            let Some(backend) = backend.filter(|backend| backend.is_that_of(run.precondition)) else {
                return Err(ToolError::Stale(format!("backend {pid} has ended by itself")));
            };
            if backend.fingerprint() != run.precondition {
                return Err(ToolError::Stale(backend.description()));
            }
            if let Some(refusal) = backend.refusal() {
                return Err(ToolError::Invalid(refusal));
            }
            marks.set(run.key, &Mark { before: run.precondition.to_owned(), after: None })?;
            let sent = send(&client, signal, &backend).await.map_err(convert)?;
            await_effect(&client, signal, &backend, run, sent).await.map_err(convert)
        })
    }

    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let signal = Signal::of(call)?;
        if self.context.marks(Self::NAME).get(key)?.is_none() {
            return Ok(Outcome::NotApplied);
        }
        let backend = self.backend(call)?;
        let has_taken_effect = signal.has_taken_effect(backend.as_ref(), precondition);
        Ok(if has_taken_effect { Outcome::Applied } else { Outcome::NotApplied })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        Ok(self.backend(call)?.map_or_else(|| "no such backend".to_owned(), |backend| backend.fingerprint()))
    }

    fn read(&self, call: &ToolCall, timeout: Duration) -> Result<Value, ToolError> {
        let settings = self.settings(call)?;
        let ListArguments { limit } = parse_arguments(&call.arguments)?;
        blocking::run_local(timeout.min(server_views::MAX_DURATION), &settings.address(), async || {
            let client = settings.connect(&self.context).await?;
            let result = server_views::run(&client, &call.operation, limit).await;
            result
                .map_err(|error| settings.error(&error))?
                .ok_or_else(|| ToolError::Invalid(format!("postgres has no diagnosis {:?}", call.operation)))
        })
    }
}

/// Sends the signal; false if the backend has left its statement or ended meanwhile, or the server could not send it.
async fn send(client: &Client, signal: Signal, backend: &Backend) -> Result<bool, tokio_postgres::Error> {
    let sql = format!("SELECT {}(pid) {SIGNAL}", signal.function());
    let Backend { pid, started, transaction_started, statement_started, state, .. } = backend;
    let row = client.query_opt(&sql, &[pid, started, transaction_started, statement_started, state]).await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// Waits until the backend shows the effect of a signal.
async fn await_effect(
    client: &Client,
    signal: Signal,
    planned: &Backend,
    run: &Run<'_>,
    sent: bool,
) -> Result<Applied, tokio_postgres::Error> {
    let pid = planned.pid;
    let started = Instant::now();
    loop {
        let found = Backend::read(client, pid).await?;
        if signal.has_taken_effect(found.as_ref(), run.precondition) {
            let detail = match signal {
                Signal::Cancel => format!("the statement of backend {pid} no longer runs"),
                Signal::Terminate => format!("backend {pid} has ended"),
            };
            return Ok(Applied::new(Outcome::Applied, detail));
        }
        if !sent {
            let detail = format!("backend {pid} went on to something else; nothing was sent to it");
            return Ok(Applied::new(Outcome::NotApplied, detail));
        }
        if started.elapsed() >= REACTION_TIME.min(run.timeout / 2) {
            let seconds = started.elapsed().as_secs();
            let detail = format!("the signal was sent, but backend {pid} has not reacted within {seconds} s");
            return Ok(Applied::new(Outcome::Unknown, detail));
        }
        (run.progress)(&format!("waiting for backend {pid} to react"));
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
