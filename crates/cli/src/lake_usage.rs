//! `wardroom lake` and `wardroom lake redrive`: usage of the tables, and rejected records.

use clap::Args;
use serde_json::{Value, json};

use crate::client::RemoteOutputArgs;
use crate::columns::Column;
use crate::output::{CommandResult, print_rows};

/// Which rejected records.
#[derive(Clone, Debug, Args)]
pub struct RedriveArgs {
    /// Bus offset of the request: `offset` in silver.quarantine.
    offset: u64,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Columns of the usage.
const COLUMNS: &[Column] = &[
    Column::text("TABLE", "/table"),
    Column::number("FILES", "/files"),
    Column::number("ROWS", "/rows"),
    Column::bytes("BYTES", "/bytes"),
    Column::number("EXPIRED ROWS", "/outdated"),
];

/// Shows the usage of each table.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn show_usage(remote: &RemoteOutputArgs) -> CommandResult {
    print_rows(&remote.client().get("/api/v1/lake")?, "tables", COLUMNS, &remote.output)
}

/// Validates rejected records again.
///
/// # Errors
/// Returns an error if there are none of this request, or the server does not answer.
pub fn redrive(args: &RedriveArgs) -> CommandResult {
    let offset = args.offset;
    let message = |response: &Value| {
        format!("accepted records of {offset} were appended to the bus at {}", response["redriven_as"])
    };
    args.remote.post(&format!("/api/v1/quarantine/{offset}/redrive"), &json!({}), message)
}
