//! `wardroom logs`.

use clap::Args;

use crate::output::CommandResult;
use crate::table_output::{TableArgs, TimeRangeArgs};

/// Search log lines: service=billing level>=error "pool".
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// Conditions that all hold: field=value, field!=value, level>=error, words of the message.
    filter: Vec<String>,
    #[command(flatten)]
    range: TimeRangeArgs,
    #[command(flatten)]
    table: TableArgs,
}

pub(crate) fn run(args: LogsArgs) -> CommandResult {
    let mut parameters = args.range.parameters()?;
    parameters.push(("query", args.filter.join(" ")));
    args.table.fetch_and_print("/api/v1/logs", parameters)
}
