//! Tools for people: what there is, and what a call would do. For the command line, beside a running executor.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wardroom_domain::{TenantId, ToolCall};
use wardroom_tools::programs::LocalPrograms;
use wardroom_tools::{Context, TOOLS, find, programs_of, shown, tools};

use crate::ExecutorError;
use crate::config::ExecutorConfig;

/// Returns name, summary and operations of every tool of this build, and the targets of a configuration.
///
/// # Errors
/// Returns an error if the configuration cannot be read.
pub fn list_tools(config: Option<&Path>) -> Result<Value, ExecutorError> {
    let targets = match config {
        Some(file) => ExecutorConfig::load(file).map_err(ExecutorError::Config)?.targets,
        None => Vec::new(),
    };
    let row = |described: Value| {
        let operations = described["operations"].as_array().into_iter().flatten();
        let operations: Vec<Value> = operations.map(|operation| operation["name"].clone()).collect();
        let name = described["name"].as_str().unwrap_or_default();
        let own: Vec<Value> = targets.iter().filter(|target| target.tool == name).map(shown).collect();
        json!({ "name": name, "summary": described["summary"], "operations": operations, "targets": own })
    };
    Ok(Value::Array(TOOLS.iter().map(|tool| row(tool.describe())).collect()))
}

/// Describes a tool: its operations with the JSON Schemas of their arguments, its limits, and the fields of its
/// targets.
///
/// # Errors
/// Returns an error that names the known tools.
pub fn describe_tool(name: &str) -> Result<Value, String> {
    find(name).map(|tool| tool.describe())
}

/// Returns what a call would do, or, if its operation changes nothing, its result. Uses the targets and credentials of
/// a configuration, which only its owner can read.
///
/// # Errors
/// Returns an error if the configuration cannot be read, or the call is not valid, or its target does not respond.
pub fn dry_run_tool(config: &Path, tenant: &TenantId, call: &ToolCall) -> Result<Value, ExecutorError> {
    let loaded = ExecutorConfig::load(config).map_err(ExecutorError::Config)?;
    let targets = loaded.targets_of(tenant);
    // For what a dry run must keep while it runs, such as a plan of Terraform.
    let folder = tempfile::Builder::new().prefix("wardroom-dry-run").tempdir()?;
    let programs = Arc::new(LocalPrograms::new(programs_of(&targets)));
    let context = Context::new(loaded.secrets.clone(), programs, folder.path());
    let failed = |detail: String| ExecutorError::Tool(detail);
    find(&call.tool).map_err(failed)?;
    let all = tools(&targets, &context);
    let tool = all.iter().find(|tool| tool.spec().name == call.tool);
    let tool = tool.ok_or_else(|| failed(format!("there is no tool {:?}", call.tool)))?;
    let operations = tool.operations(&call.target);
    let is_read_only = operations.iter().any(|operation| operation.name == call.operation && operation.read_only);
    let result = match is_read_only {
        true => tool.read(call, Duration::ZERO),
        false => tool.plan(call).map(|dry_run| json!(dry_run)),
    };
    result.map_err(|error| failed(error.to_string()))
}
