//! The contract of tools, which execute actions on target systems.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use wardroom_domain::{DryRun, Outcome, ToolCall};

/// One operation of a tool.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Name in a call.
    pub name: &'static str,
    /// Description, one line.
    pub summary: &'static str,
    /// JSON Schema of the arguments.
    pub arguments: Value,
    /// Risk: `low`, `medium` or `high`.
    pub risk: &'static str,
}

/// Description of a tool.
#[derive(Clone, Debug, Serialize)]
pub struct ToolSpec {
    /// Name in a call.
    pub name: &'static str,
    /// Description, one line.
    pub summary: &'static str,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the operation took effect.
    pub outcome: Outcome,
    /// Detail from the target.
    pub detail: String,
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

/// A tool that executes operations on targets.
///
/// `plan` is read-only and may be called at any time. `execute` passes the idempotency key to the target and fails with
/// [`ToolError::Stale`] if the target's state is not `precondition`; called twice with one key it takes effect once.
/// `probe` returns whether the operation of a key took effect: after a crash it is called before any retry, and
/// [`Outcome::Unknown`] is escalated to a person and never retried. All methods block.
pub trait Tool: Send + Sync {
    /// Returns name, operations and their argument schemas.
    fn spec(&self) -> ToolSpec;

    /// Checks a call without contacting its target: the target is declared, the operation is allowed on it, and the
    /// arguments are valid.
    ///
    /// # Errors
    /// Returns [`ToolError::Invalid`] if the call is none that this tool may carry out.
    fn check(&self, call: &ToolCall) -> Result<(), ToolError>;

    /// Returns what the call would do.
    ///
    /// # Errors
    /// Returns an error if the call is invalid or the target does not respond.
    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError>;

    /// Executes the call.
    ///
    /// # Errors
    /// See [`ToolError`].
    fn execute(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Applied, ToolError>;

    /// Returns whether the operation of a key took effect, if the target was at `precondition` before.
    ///
    /// # Errors
    /// Returns an error if the target does not respond.
    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError>;

    /// Returns the target's current state, in the form of a plan's precondition.
    ///
    /// # Errors
    /// Returns an error if the target does not respond.
    fn state(&self, call: &ToolCall) -> Result<String, ToolError>;
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
