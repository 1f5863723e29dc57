//! `wardroom sql`.

use std::io::Read;

use clap::Args;

use crate::output::CommandResult;
use crate::table_output::TableArgs;

/// Run a SQL query over the tables.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom sql \"SELECT service, count(*) FROM logs GROUP BY service\"
  wardroom sql -o csv \"SELECT * FROM deployments LIMIT 10\" > deployments.csv
  wardroom sql - < query.sql")]
pub struct SqlArgs {
    /// The query; - reads it from standard input.
    query: String,
    #[command(flatten)]
    table: TableArgs,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the server does not answer, or refuses the query.
pub fn run(args: SqlArgs) -> CommandResult {
    let mut query = args.query;
    if query == "-" {
        query.clear();
        std::io::stdin().read_to_string(&mut query)?;
    }
    let path = format!("/api/v1/sql?format={}", args.table.format().as_str());
    args.table.print(&args.table.client().post_text(&path, &query)?)
}
