//! The contract of tools, which execute actions on target systems.
//!
//! Problem: what acts on production must do it once, show beforehand what it would do, and say afterwards whether it
//! happened, although target, network and this process can fail at any point. Model: a tool describes its operations,
//! plans a call against the target's current state, executes it with that state as precondition and an idempotency key,
//! and can be asked later whether the operation of a key took effect. Guarantee: the contract suite of the `tools`
//! crate runs every operation of every tool twice, stale, refused, undone and interrupted at each step.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wardroom_domain::{DryRun, Outcome, ToolCall};

/// Default of [`ToolSpec::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of [`ToolSpec::output_bytes`].
pub(crate) const DEFAULT_OUTPUT_BYTES: usize = 64 << 10;

/// What a mistaken execution can cost, as the tool sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Nothing, or what the next minutes repair.
    Low,
    /// A service is degraded until a person reverses it.
    Medium,
    /// Data or capacity is lost, or many services are affected.
    High,
}

impl Risk {
    /// Returns the spelling in plans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl std::fmt::Display for Risk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One operation of a tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// Name in a call.
    pub name: String,
    /// Description, one line.
    pub summary: String,
    /// JSON Schema of the arguments, with bounds; units are in names or descriptions.
    pub arguments: Value,
    /// Risk.
    pub risk: Risk,
    /// Whether it changes nothing: then it needs no approval, and its result is evidence.
    pub read_only: bool,
    /// Whether a dry run offers an undo, as far as the target's state allows one.
    pub reversible: bool,
}

/// Description of a tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolSpec {
    /// Name in a call.
    pub name: String,
    /// Description, one line.
    pub summary: String,
    /// The operations.
    pub operations: Vec<Operation>,
    /// Maximum duration of one call, unless the target declares another.
    #[serde(serialize_with = "as_seconds", rename = "timeout_seconds")]
    pub timeout: Duration,
    /// Maximum size of an output, in bytes, unless the target declares another; the rest is cut off.
    pub output_bytes: usize,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

impl ToolSpec {
    /// Creates a description with the default limits.
    pub fn new(name: &str, summary: &str, operations: Vec<Operation>) -> Self {
        Self {
            name: name.to_owned(),
            summary: summary.to_owned(),
            operations,
            timeout: DEFAULT_TIMEOUT,
            output_bytes: DEFAULT_OUTPUT_BYTES,
        }
    }
}

/// Describes an operation that changes its target; `A` are the arguments.
pub fn operation<A: JsonSchema>(name: &str, summary: &str, risk: Risk, reversible: bool) -> Operation {
    Operation {
        name: name.to_owned(),
        summary: summary.to_owned(),
        arguments: argument_schema::<A>(),
        risk,
        read_only: false,
        reversible,
    }
}

/// Describes an operation that changes nothing; `A` are the arguments.
pub fn read_operation<A: JsonSchema>(name: &str, summary: &str) -> Operation {
    Operation { read_only: true, reversible: true, ..operation::<A>(name, summary, Risk::Low, true) }
}

/// Returns the JSON Schema of arguments, with the schemas of their parts in place.
fn argument_schema<A: JsonSchema>() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<A>().to_value()
}

/// Arguments of an operation that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the operation took effect.
    pub outcome: Outcome,
    /// One line from the target.
    pub detail: String,
    /// What the operation printed or returned; empty if nothing.
    pub output: String,
}

impl Applied {
    /// Creates a result without output.
    pub fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), output: String::new() }
    }
}

/// The conditions of one execution.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// State of the target in the plan.
    pub precondition: &'a str,
    /// Idempotency key.
    pub key: &'a str,
    /// Maximum duration.
    pub timeout: Duration,
    /// Takes one line about how far a long operation is.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Run<'a> {
    /// Creates a run with the default timeout that drops its progress.
    pub fn new(precondition: &'a str, key: &'a str) -> Self {
        Self { precondition, key, timeout: DEFAULT_TIMEOUT, progress: &|_| () }
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { precondition, key, timeout, progress: _ } = self;
        f.debug_struct("Run")
            .field("precondition", precondition)
            .field("key", key)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}

/// Why a tool call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The call is invalid, or the target does not support it.
    #[error("{0}")]
    Invalid(String),
    /// The target has changed since the plan was made.
    #[error("plan is stale: {0}")]
    Stale(String),
    /// The target did not respond; whether the operation took effect is unknown until it is probed.
    #[error("target did not respond: {0}")]
    Unavailable(String),
}

impl ToolError {
    /// Returns the error with another text.
    #[must_use]
    pub fn map_text(self, map: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Invalid(text) => Self::Invalid(map(text)),
            Self::Stale(text) => Self::Stale(map(text)),
            Self::Unavailable(text) => Self::Unavailable(map(text)),
        }
    }
}

/// A tool that executes operations on targets.
///
/// Callers of a tool go through the guard of the `tools` crate, which checks target, operation and arguments
/// against the configuration and the schema, answers for operations that are read only, and redacts and limits outputs.
/// A tool relies on that. All methods block.
///
/// `plan` changes nothing and may be called at any time; two plans of an unchanged target are equal, because the
/// executor plans again before it executes and compares. `execute` passes the idempotency key to the target and fails
/// with [`ToolError::Stale`] if the target's state is not the precondition; called twice with one key it takes effect
/// once. A success response of a target is not trusted: the effect is probed. `probe` returns whether the operation of
/// a key took effect: after a crash it is called before any retry, and [`Outcome::Unknown`] is escalated to a person
/// and never retried.
pub trait Tool: Send + Sync {
    /// Returns name, limits, and the operations of all targets.
    fn spec(&self) -> ToolSpec;

    /// Returns the operations of one target; they differ between targets if the configuration declares them.
    fn operations(&self, _target: &str) -> Vec<Operation> {
        self.spec().operations
    }

    /// Checks a call without contacting its target, beyond what the schema says.
    ///
    /// # Errors
    /// Returns [`ToolError::Invalid`] if the call is none that this tool may carry out.
    fn check(&self, call: &ToolCall) -> Result<(), ToolError>;

    /// Returns what the call would do.
    ///
    /// # Errors
    /// Returns an error if the call is invalid or the target does not respond.
    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        Err(not_changing(call))
    }

    /// Executes the call, to its end.
    ///
    /// # Errors
    /// See [`ToolError`].
    fn execute(&self, call: &ToolCall, _run: &Run<'_>) -> Result<Applied, ToolError> {
        Err(not_changing(call))
    }

    /// Returns whether the operation of a key took effect, if the target was at `precondition` before.
    ///
    /// # Errors
    /// Returns an error if the target does not respond.
    fn probe(&self, call: &ToolCall, _precondition: &str, _key: &str) -> Result<Outcome, ToolError> {
        Err(not_changing(call))
    }

    /// Returns the target's current state, in the form of a plan's precondition.
    ///
    /// # Errors
    /// Returns an error if the target does not respond.
    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        Err(not_changing(call))
    }

    /// Returns the result of an operation that is read only.
    ///
    /// # Errors
    /// Returns an error if the operation is none that only reads, or the target does not respond in time.
    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        Err(ToolError::Invalid(format!("{} of {} changes its target and needs an approval", call.operation, call.tool)))
    }
}

fn not_changing(call: &ToolCall) -> ToolError {
    ToolError::Invalid(format!("{} of {} only reads: it is not planned or executed", call.operation, call.tool))
}

/// Parses an operation's arguments.
///
/// # Errors
/// Returns an error that names the argument if one is unknown, missing or of a wrong type.
pub fn parse_arguments<T: serde::de::DeserializeOwned + JsonSchema>(
    arguments: &Map<String, Value>,
) -> Result<T, ToolError> {
    serde_json::from_value(Value::Object(arguments.clone()))
        .map_err(|error| ToolError::Invalid(format!("arguments: {error}")))
}
