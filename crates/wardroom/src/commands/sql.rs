//! `wardroom sql`.

use std::io::Read;

use clap::Args;

use crate::output::CommandResult;
use crate::table_output::TableArgs;

/// Run a SQL query over the tables.
#[derive(Clone, Debug, Args)]
pub(crate) struct SqlArgs {
    /// The query; - reads it from standard input.
    query: String,
    #[command(flatten)]
    table: TableArgs,
}

pub(crate) fn run(args: SqlArgs) -> CommandResult {
    let mut query = args.query;
    if query == "-" {
        query.clear();
        std::io::stdin().read_to_string(&mut query)?;
    }
    let path = format!("/api/v1/sql?format={}", args.table.format.as_str());
    args.table.print(&args.table.remote.client().post_text(&path, &query)?)
}
