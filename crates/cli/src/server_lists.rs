//! `wardroom plans`, `wardroom sources list`, `wardroom approver list` and `wardroom whoami`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::RemoteOutputArgs;
use crate::columns::{Column, state_tone};
use crate::output::{CommandResult, print_result, print_rows};

/// List plans that wait for an approval, or all of them.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom plans
  wardroom plans --all -o wide")]
pub struct PlansArgs {
    /// Also plans that were decided about.
    #[arg(long)]
    all: bool,
    /// Maximum number of rows.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const PLAN_COLUMNS: &[Column] = &[
    Column::text("INCIDENT", "/incident_id"),
    Column::text("STATE", "/state").toned(state_tone),
    Column::text("TOOL", "/plan/tool"),
    Column::text("OPERATION", "/plan/operation"),
    Column::text("TARGET", "/plan/target"),
    Column::text("RISK", "/plan/risk"),
    Column::text("POLICY", "/policy/answer"),
    Column::text("PLAN HASH", "/plan/plan_sha256").wide(),
    Column::text("CHANGE", "/plan/diff"),
];

/// Lists plans.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_plans(args: PlansArgs) -> CommandResult {
    let state = if args.all { "all" } else { "pending" };
    let plans = args.remote.client().list("/api/v1/plans", "plans", &[("state", state.to_owned())], args.limit)?;
    print_rows(&plans, "plans", PLAN_COLUMNS, &args.remote.output)
}

/// Sources of telemetry.
#[derive(Clone, Debug, Args)]
pub struct SourcesArgs {
    #[command(subcommand)]
    command: SourcesCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SourcesCommand {
    /// List what has come by each way in, and when last.
    #[command(after_help = "Example:\n  wardroom sources list -o wide")]
    List {
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
}

const SOURCE_COLUMNS: &[Column] = &[
    Column::text("PROTOCOL", "/protocol"),
    Column::text("PRINCIPAL", "/principal"),
    Column::time("LAST", "/last_at"),
    Column::number("REQUESTS", "/accepted"),
    Column::bytes("BYTES", "/bytes"),
    Column::number("REJECTED RECORDS", "/rejected"),
];

/// Runs the command.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn run_sources(args: SourcesArgs) -> CommandResult {
    let SourcesCommand::List { remote } = args.command;
    print_rows(&remote.client().get("/api/v1/sources")?, "sources", SOURCE_COLUMNS, &remote.output)
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ApproversArgs {
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const APPROVER_COLUMNS: &[Column] = &[
    Column::text("PRINCIPAL", "/principal"),
    Column::text("TENANT", "/tenant"),
    Column::text("PROOF", "/proof"),
    Column::text("KEY", "/key"),
];

/// Lists who may approve.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_approvers(args: &ApproversArgs) -> CommandResult {
    print_rows(&args.remote.client().get("/api/v1/approvers")?, "approvers", APPROVER_COLUMNS, &args.remote.output)
}

/// Show who the token says that you are, and what you may do.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  wardroom whoami -o json | jq -r .role")]
pub struct WhoamiArgs {
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const CALLER_COLUMNS: &[Column] = &[
    Column::text("PRINCIPAL", "/principal"),
    Column::text("TENANT", "/tenant"),
    Column::text("ROLE", "/role"),
    Column::text("MAY", "/may"),
];

/// Shows the caller.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn show_caller(args: WhoamiArgs) -> CommandResult {
    let caller: Value = args.remote.client().get("/api/v1/whoami")?;
    if args.remote.output.is_document() {
        return print_result(&caller, "", &args.remote.output);
    }
    print_rows(&json!({ "callers": [caller] }), "callers", CALLER_COLUMNS, &args.remote.output)
}
