//! The contract suite of tools, each against a real counterpart.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

mod contract;
mod coverage;
mod cut_proxy;
mod exec;
mod gcp;
mod github;
mod http;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod little_server;
mod official_clients;
mod postgres;
mod process;
mod prometheus;
mod redis;
mod restart_validator_client;
mod secrets;
mod ssrf;
mod support;
mod systemd;
mod terraform;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use wardroom_domain::ToolCall;
use wardroom_respond::Tool;
use wardroom_tools::programs::{LocalPrograms, NoPrograms, Programs};
use wardroom_tools::{Context, SecretsConfig, Target, check_targets, find, programs_of};

/// Creates the tool of these targets without programs and without a folder.
fn tool(targets: &Value) -> Box<dyn Tool> {
    tool_with(targets, &Context::new(SecretsConfig::default(), Arc::new(NoPrograms), PathBuf::new()))
}

/// Creates the tool of these targets.
fn tool_with(targets: &Value, context: &Context) -> Box<dyn Tool> {
    let targets = read_targets(targets);
    find(&targets[0].tool).unwrap().create(&targets, context)
}

fn read_targets(targets: &Value) -> Vec<Target> {
    let targets: Vec<Target> = serde_json::from_value(targets.clone()).unwrap();
    check_targets(&targets).unwrap();
    targets
}

/// Programs that these targets need, started in this process.
fn local_programs(targets: &Value) -> LocalPrograms {
    LocalPrograms::new(programs_of(&read_targets(targets)))
}

fn context(programs: impl Programs + 'static, folder: &Path) -> Context {
    Context::new(SecretsConfig::default(), Arc::new(programs), folder)
}

fn call(tool: &str, operation: &str, target: &str, arguments: Value) -> ToolCall {
    let arguments = arguments.as_object().cloned().unwrap();
    ToolCall { tool: tool.into(), operation: operation.into(), target: target.into(), arguments }
}
