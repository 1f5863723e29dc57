//! `wardroom logs`.

use clap::Args;

use crate::output::CommandResult;
use crate::table_output::{TableArgs, TimeRangeArgs};

/// Search log lines: service=billing level>=error "pool".
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom logs 'level>=error' --since 15m
  wardroom logs service=billing 'level>=error' pool -o json")]
pub struct LogsArgs {
    /// Conditions that all hold: field=value, field!=value, level>=error, words of the message.
    filter: Vec<String>,
    #[command(flatten)]
    range: TimeRangeArgs,
    #[command(flatten)]
    table: TableArgs,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the server does not answer, or does not accept it.
pub fn run(args: LogsArgs) -> CommandResult {
    let mut parameters = args.range.parameters()?;
    parameters.push(("query", args.filter.join(" ")));
    args.table.fetch_and_print("/api/v1/logs", parameters)
}
