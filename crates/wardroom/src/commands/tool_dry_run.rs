//! `wardroom tools`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use wardroom_domain::{TenantId, ToolCall};
use wardroom_roles::executor::{describe_tool, dry_run_tool, list_tools};

use crate::output::{CommandResult, print_json, print_line};

/// The tools that act on target systems.
#[derive(Clone, Debug, Args)]
pub(crate) struct ToolsArgs {
    #[command(subcommand)]
    command: ToolsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ToolsCommand {
    /// List the tools of this build with their operations, and the targets of a configuration.
    List {
        /// The executor's configuration file.
        #[arg(long, value_name = "FILE")]
        executor_config: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Describe a tool: operations, schemas of their arguments, limits, fields of its targets. Prints JSON.
    Describe {
        /// The tool.
        tool: String,
    },
    /// Show what a call would do, without an approval and without an effect; an operation that only reads is carried
    /// out. Prints JSON.
    DryRun {
        /// The executor's configuration file.
        #[arg(long, value_name = "FILE")]
        executor_config: PathBuf,
        /// Tenant of the target.
        #[arg(long, default_value = "main")]
        tenant: String,
        /// The tool.
        tool: String,
        /// The operation.
        operation: String,
        /// Name of the target.
        target: String,
        /// Arguments as a JSON object.
        #[arg(long, default_value = "{}")]
        arguments: String,
    },
}

pub(crate) fn run(args: ToolsArgs) -> CommandResult {
    match args.command {
        ToolsCommand::List { executor_config, json } => {
            let tools = list_tools(executor_config.as_deref())?;
            if json { print_json(tools)? } else { print_table(&tools)? }
        }
        ToolsCommand::Describe { tool } => print_json(describe_tool(&tool).map_err(anyhow::Error::msg)?)?,
        ToolsCommand::DryRun { executor_config, tenant, tool, operation, target, arguments } => {
            let tenant = TenantId::new(&tenant).map_err(anyhow::Error::msg)?;
            let arguments: Map<String, Value> = serde_json::from_str(&arguments)
                .map_err(|error| anyhow::anyhow!("--arguments is not a JSON object: {error}"))?;
            print_json(dry_run_tool(&executor_config, &tenant, &ToolCall { tool, operation, target, arguments })?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(tools: &Value) -> std::io::Result<()> {
    for tool in tools.as_array().into_iter().flatten() {
        let text = |name: &str| tool[name].as_str().unwrap_or_default().to_owned();
        let names = |values: &Value, of: &dyn Fn(&Value) -> String| {
            values.as_array().into_iter().flatten().map(of).collect::<Vec<_>>().join(", ")
        };
        let operations = names(&tool["operations"], &|name| name.as_str().unwrap_or_default().to_owned());
        let operations = if operations.is_empty() { "declared by each target".to_owned() } else { operations };
        print_line(format!("{:<24} {}: {operations}", text("name"), text("summary")))?;
        for target in tool["targets"].as_array().into_iter().flatten() {
            let part = |name: &str| target[name].as_str().unwrap_or_default().to_owned();
            print_line(format!("{:<24}   target {} of tenant {}", "", part("name"), part("tenant")))?;
        }
    }
    Ok(())
}
