//! `wardroom bus dlq`: lists, shows and replays dead letters.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::client::RemoteOutputArgs;
use crate::columns::Column;
use crate::output::{CommandResult, print_document, print_json, print_rows};
use crate::presentation::OutputArgs;

/// Which dead letter.
#[derive(Clone, Debug, Args)]
pub struct DeadLetterArgs {
    /// Number of the dead letter.
    id: u64,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Columns of the list.
const COLUMNS: &[Column] = &[
    Column::number("ID", "/id"),
    Column::time("LAST TRY", "/last_try"),
    Column::number("TRIES", "/tries").wide(),
    Column::time("RECEIVED", "/received_at").wide(),
    Column::text("PRINCIPAL", "/principal").wide(),
    Column::bytes("BYTES", "/bytes").wide(),
    Column::text("PROTOCOL", "/protocol"),
    Column::made("STATE", state),
    Column::text("REASON", "/reason"),
];

fn state(dead_letter: &Value) -> String {
    match &dead_letter["replayed_as"] {
        Value::Null => "pending".to_owned(),
        offset => format!("replayed as {offset}"),
    }
}

/// Prints a list of dead letters: the response of the API.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_list(response: &Value, output: &OutputArgs) -> CommandResult {
    print_rows(response, "dead_letters", COLUMNS, output)
}

/// Shows one dead letter.
///
/// # Errors
/// Returns an error if there is none of this number, or the server does not answer.
pub fn show(args: &DeadLetterArgs) -> CommandResult {
    let response = args.remote.client().get(&format!("/api/v1/dead-letters/{}", args.id))?;
    if args.remote.output.is_document() {
        print_document(&response, &args.remote.output.presentation())?;
    } else {
        print_json(serde_json::to_string_pretty(&response)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Appends a dead letter to the bus again.
///
/// # Errors
/// Returns an error if there is none of this number, or the server does not answer.
pub fn replay(args: &DeadLetterArgs) -> CommandResult {
    let id = args.id;
    let message = |response: &Value| format!("{id} was appended to the bus at {}", response["offset"]);
    args.remote.post(&format!("/api/v1/dead-letters/{id}/replay"), &json!({}), message)
}
