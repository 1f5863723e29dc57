//! `wardroom policy autonomy` and `wardroom policy accept`: what actions have earned.

use clap::Args;
use serde_json::{Value, json};

use crate::client::RemoteOutputArgs;
use crate::columns::Column;
use crate::output::{CommandResult, print_rows};

/// Where the list comes from.
#[derive(Clone, Debug, Args)]
pub struct AutonomyArgs {
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Which offer.
#[derive(Clone, Debug, Args)]
pub struct AcceptArgs {
    /// Id of the rule that names the cause.
    rule: String,
    /// The tool.
    tool: String,
    /// The operation.
    operation: String,
    /// night, automatic or ask.
    #[arg(long)]
    level: String,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Columns of the list.
const COLUMNS: &[Column] = &[
    Column::text("CAUSE", "/rule"),
    Column::text("TOOL", "/tool"),
    Column::text("OPERATION", "/operation"),
    Column::text("LEVEL", "/level"),
    Column::made("AGREED", |pair| share(&pair["agreed"])),
    Column::made("HELPED", |pair| share(&pair["helped"])),
    Column::made("AT LEAST", |pair| format!("{:.2}", pair["lower_bound"].as_f64().unwrap_or_default())),
    Column::text("OFFER", "/offer"),
];

fn share(pair: &Value) -> String {
    format!("{} of {}", pair[0], pair[1])
}

/// Lists what each action has earned for each cause.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list(args: &AutonomyArgs) -> CommandResult {
    print_rows(&args.remote.client().get("/api/v1/autonomy")?, "pairs", COLUMNS, &args.remote.output)
}

/// Accepts an offer, or takes autonomy back.
///
/// # Errors
/// Returns an error if the server does not accept it.
pub fn accept(args: AcceptArgs) -> CommandResult {
    let AcceptArgs { rule, tool, operation, level, remote } = args;
    let body = json!({ "rule": rule, "tool": tool, "operation": operation, "level": level });
    remote.post("/api/v1/autonomy", &body, |_| format!("{tool} {operation} for {rule}: {level}"))
}
