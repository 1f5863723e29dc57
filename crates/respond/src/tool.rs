//! The contract of everything that changes the world.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use wardroom_domain::{DryRun, Outcome, ToolCall};

/// One operation of a tool.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its name in a call.
    pub name: &'static str,
    /// One line for a person.
    pub summary: &'static str,
    /// JSON Schema of its arguments.
    pub arguments: Value,
    /// `low`, `medium` or `high`.
    pub risk: &'static str,
}

/// What a tool is.
#[derive(Clone, Debug, Serialize)]
pub struct ToolSpec {
    /// Its name in a call.
    pub name: &'static str,
    /// One line for a person.
    pub summary: &'static str,
    /// Its operations.
    pub operations: Vec<Operation>,
}

/// What a target says after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the effect is there.
    pub outcome: Outcome,
    /// The target's own words.
    pub detail: String,
}

/// Why a tool could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The call does not fit the tool, or the target cannot do it.
    #[error("{0}")]
    Invalid(String),
    /// The target is no longer as the plan found it.
    #[error("plan is stale: {0}")]
    Stale(String),
    /// The target did not answer; whether anything happened is unknown until probed.
    #[error("target did not answer: {0}")]
    Unavailable(String),
}

/// Something that changes the world, one target at a time.
///
/// `plan` changes nothing and may be called by anybody at any time. `execute` carries the idempotency
/// key to the target and refuses with [`ToolError::Stale`] if the target's state is not
/// `precondition`; called twice with one key it has one effect. `probe` says whether the effect of a
/// key is there: after a crash it is asked before anything is tried again, and
/// [`Outcome::Unknown`] goes to a person, never to a retry. All block.
pub trait Tool: Send + Sync {
    /// Name, operations and their argument schemas.
    fn spec(&self) -> ToolSpec;

    /// What the call would do.
    ///
    /// # Errors
    /// It cannot be done, or the target does not answer.
    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError>;

    /// Does it.
    ///
    /// # Errors
    /// See [`ToolError`].
    fn execute(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Applied, ToolError>;

    /// Whether the effect of a key is there, if the target was at `precondition` before.
    ///
    /// # Errors
    /// The target does not answer.
    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError>;

    /// The target's state now, as a plan's precondition has it.
    ///
    /// # Errors
    /// The target does not answer.
    fn state(&self, call: &ToolCall) -> Result<String, ToolError>;
}

/// Reads an operation's arguments into their type; names the field that does not fit.
///
/// # Errors
/// Unknown, missing or ill-typed arguments.
pub fn call_errors<T: serde::de::DeserializeOwned + JsonSchema>(
    arguments: &Map<String, Value>,
) -> Result<T, ToolError> {
    serde_json::from_value(Value::Object(arguments.clone()))
        .map_err(|error| ToolError::Invalid(format!("arguments: {error}")))
}
