//! What stands between a caller and every tool.
//!
//! Problem: each tool would have to check, limit and redact by itself, and one would forget. Model: callers have only
//! guarded tools. The guard checks that the target is declared, the operation exists and is allowed on it, and the
//! arguments fit the schema; answers for operations that are read only; sets the time limit; redacts, and then
//! shortens, what comes back. Guarantee: a tool is not called with anything else, and nothing that it returns has a
//! credential that was resolved. Preconditions are compared and not shown, so they are passed on as they are: a tool
//! puts a hash there in place of anything secret.

use std::time::Duration;

use serde_json::{Value, json};
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Operation, Run, Tool, ToolError, ToolSpec};

use crate::redaction::{redact, redact_value, shorten};
use crate::schema;
use crate::secrets::Secrets;
use crate::target::Target;

/// Longest one-line text of a result or an error, in bytes.
const MAX_LINE_BYTES: usize = 4 << 10;
/// Precondition of operations that change nothing.
const READ_ONLY_STATE: &str = "read only";

/// A tool with its guard.
pub(crate) struct Guarded {
    tool: Box<dyn Tool>,
    targets: Vec<Target>,
    secrets: Secrets,
}

impl Guarded {
    pub(crate) const fn new(tool: Box<dyn Tool>, targets: Vec<Target>, secrets: Secrets) -> Self {
        Self { tool, targets, secrets }
    }

    /// Checks a call; returns its target and operation.
    fn admit(&self, call: &ToolCall) -> Result<(&Target, Operation), ToolError> {
        let ToolCall { target, operation: name, .. } = call;
        let declared = self.targets.iter().find(|declared| declared.name == *target).ok_or_else(|| {
            ToolError::Invalid(format!(
                "target {target:?} is not declared for this tenant in the executor's configuration"
            ))
        })?;
        let operations = self.tool.operations(target);
        let Some(operation) = operations.iter().find(|operation| operation.name == *name) else {
            let known: Vec<&str> = operations.iter().map(|operation| operation.name.as_str()).collect();
            let tool = &call.tool;
            return Err(ToolError::Invalid(format!(
                "{tool} has no operation {name:?}; there are {}",
                known.join(", ")
            )));
        };
        if declared.operations.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
            return Err(ToolError::Invalid(format!("operation {name:?} is not allowed on {target:?}")));
        }
        schema::check(&operation.arguments, &Value::Object(call.arguments.clone())).map_err(|problem| {
            let place = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            ToolError::Invalid(format!("arguments: {place}{}", problem.reason))
        })?;
        self.tool.check(call).map_err(|error| self.clean_error(error))?;
        Ok((declared, operation.clone()))
    }

    fn clean(&self, text: &str, limit: usize) -> String {
        shorten(redact(text, &self.secrets.known()), limit)
    }

    fn clean_error(&self, error: ToolError) -> ToolError {
        error.map_text(|text| self.clean(&text, MAX_LINE_BYTES))
    }

    /// Reads, redacts and limits. A result that is too large becomes a text that says so.
    fn read_limited(&self, call: &ToolCall, target: &Target) -> Result<Value, ToolError> {
        let spec = self.tool.spec();
        let timeout = target.timeout(&spec);
        let mut value = self.tool.read(call, timeout).map_err(|error| self.clean_error(error))?;
        redact_value(&mut value, &self.secrets.known());
        let (text, limit) = (value.to_string(), target.output_limit(&spec));
        if text.len() <= limit { Ok(value) } else { Ok(Value::String(shorten(text, limit))) }
    }
}

impl Tool for Guarded {
    fn spec(&self) -> ToolSpec {
        self.tool.spec()
    }

    fn operations(&self, target: &str) -> Vec<Operation> {
        self.tool.operations(target)
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        self.admit(call).map(drop)
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let (_, operation) = self.admit(call)?;
        if operation.read_only {
            return Ok(DryRun {
                diff: format!("nothing changes: {}", operation.summary),
                blast_radius: "nothing changes".to_owned(),
                affected: Some(0),
                risk: operation.risk.as_str().to_owned(),
                reversible: true,
                precondition: READ_ONLY_STATE.to_owned(),
                undo: None,
            });
        }
        let mut dry_run = self.tool.plan(call).map_err(|error| self.clean_error(error))?;
        dry_run.diff = self.clean(&dry_run.diff, MAX_LINE_BYTES);
        dry_run.blast_radius = self.clean(&dry_run.blast_radius, MAX_LINE_BYTES);
        Ok(dry_run)
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let (target, operation) = self.admit(call)?;
        if operation.read_only {
            let output = match self.read_limited(call, target)? {
                Value::String(text) => text,
                value => value.to_string(),
            };
            return Ok(Applied { output, ..Applied::new(Outcome::Applied, format!("{} done", operation.name)) });
        }
        let spec = self.tool.spec();
        let report = |text: &str| (run.progress)(&self.clean(text, MAX_LINE_BYTES));
        let run = Run { timeout: target.timeout(&spec), progress: &report, ..*run };
        let applied = self.tool.execute(call, &run).map_err(|error| self.clean_error(error))?;
        Ok(Applied {
            outcome: applied.outcome,
            detail: self.clean(&applied.detail, MAX_LINE_BYTES),
            output: self.clean(&applied.output, target.output_limit(&spec)),
        })
    }

    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let (_, operation) = self.admit(call)?;
        if operation.read_only {
            // Reading again does no harm.
            return Ok(Outcome::NotApplied);
        }
        self.tool.probe(call, precondition, key).map_err(|error| self.clean_error(error))
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        let (_, operation) = self.admit(call)?;
        if operation.read_only {
            return Ok(READ_ONLY_STATE.to_owned());
        }
        self.tool.state(call).map_err(|error| self.clean_error(error))
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        let (target, operation) = self.admit(call)?;
        if !operation.read_only {
            let ToolCall { tool, operation, .. } = call;
            return Err(ToolError::Invalid(format!("{operation} of {tool} changes its target and needs an approval")));
        }
        self.read_limited(call, target)
    }
}

/// Describes a tool, with the operations of its targets, for people.
pub(crate) fn describe(tool: &dyn Tool, settings: &Value) -> Value {
    let spec = tool.spec();
    json!({ "name": spec.name, "summary": spec.summary, "timeout_seconds": spec.timeout.as_secs(),
        "output_bytes": spec.output_bytes, "operations": spec.operations, "settings": settings })
}
