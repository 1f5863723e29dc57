//! `wardroom trace`.

use clap::Args;

use crate::output::CommandResult;
use crate::table_output::TableArgs;

/// Show the spans of a trace.
#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// Trace id: 32 hexadecimal digits.
    id: String,
    #[command(flatten)]
    table: TableArgs,
}

pub(crate) fn run(args: TraceArgs) -> CommandResult {
    args.table.fetch_and_print(&format!("/api/v1/traces/{}", args.id), Vec::new())
}
