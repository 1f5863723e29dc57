//! `wardroom trace`.

use clap::Args;

use crate::output::CommandResult;
use crate::table_output::TableArgs;

/// Show the spans of a trace.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  wardroom trace 4bf92f3577b34da6a3ce929d0e0e4736 -o json")]
pub struct TraceArgs {
    /// Trace id: 32 hexadecimal digits.
    id: String,
    #[command(flatten)]
    table: TableArgs,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the server does not answer, or does not accept it.
pub fn run(args: TraceArgs) -> CommandResult {
    args.table.fetch_and_print(&format!("/api/v1/traces/{}", args.id), Vec::new())
}
