//! `wardroom tools`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use wardroom_domain::{TenantId, ToolCall};
use wardroom_roles::executor::{describe_tool, dry_run_tool, list_tools};

use wardroom_cli::columns::Column;
use wardroom_cli::output::{CommandResult, print_document, print_rows};
use wardroom_cli::presentation::OutputArgs;
use wardroom_cli::tool_targets::{TargetsArgs, list_targets};

/// The tools that act on target systems.
#[derive(Clone, Debug, Args)]
pub(crate) struct ToolsArgs {
    #[command(subcommand)]
    command: ToolsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ToolsCommand {
    #[command(after_help = "Example:\n  wardroom tools list --executor-config executor.yaml")]
    /// List the tools of this build with their operations, and the targets of a configuration.
    List {
        /// The executor's configuration file.
        #[arg(long, value_name = "FILE")]
        executor_config: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List the targets that the server may act on, with their operations.
    #[command(after_help = "Example:\n  wardroom tools targets -o wide")]
    Targets(TargetsArgs),
    #[command(after_help = "Example:\n  wardroom tools describe process")]
    /// Describe a tool: operations, schemas of their arguments, limits, fields of its targets. Prints JSON.
    Describe {
        /// The tool.
        tool: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    #[command(after_help = "\
Example:
  wardroom tools dry-run --executor-config executor.yaml process restart cart")]
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
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(args: ToolsArgs) -> CommandResult {
    match args.command {
        ToolsCommand::List { executor_config, output } => {
            let tools = json!({ "tools": list_tools(executor_config.as_deref())? });
            if !output.is_document() {
                return print_rows(&tools, "tools", TOOL_COLUMNS, &output);
            }
            print_document(&tools["tools"], &output.presentation())?;
        }
        ToolsCommand::Targets(args) => return list_targets(&args),
        ToolsCommand::Describe { tool, output } => {
            print_document(&describe_tool(&tool).map_err(anyhow::Error::msg)?, &output.presentation())?;
        }
        ToolsCommand::DryRun { executor_config, tenant, tool, operation, target, arguments, output } => {
            let tenant = TenantId::new(&tenant).map_err(anyhow::Error::msg)?;
            let arguments: Map<String, Value> = serde_json::from_str(&arguments)
                .map_err(|error| anyhow::anyhow!("--arguments is not a JSON object: {error}"))?;
            let call = ToolCall { tool, operation, target, arguments };
            print_document(&dry_run_tool(&executor_config, &tenant, &call)?, &output.presentation())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns of the list of tools.
const TOOL_COLUMNS: &[Column] = &[
    Column::text("TOOL", "/name"),
    Column::made("OPERATIONS", |tool| match tool["operations"].as_array().filter(|names| !names.is_empty()) {
        Some(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        None => "declared by each target".to_owned(),
    }),
    Column::made("TARGETS", target_names),
    Column::text("SUMMARY", "/summary"),
];

fn target_names(tool: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let targets = tool["targets"].as_array().into_iter().flatten();
    let names = targets.map(|target| format!("{} of tenant {}", text(&target["name"]), text(&target["tenant"])));
    names.collect::<Vec<_>>().join(", ")
}
