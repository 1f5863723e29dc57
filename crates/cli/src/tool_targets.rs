//! `wardroom tools targets`: what the server may act on.

use clap::Args;

use crate::client::RemoteOutputArgs;
use crate::columns::Column;
use crate::output::{CommandResult, print_rows};

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct TargetsArgs {
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Columns of the list.
const COLUMNS: &[Column] =
    &[Column::text("TARGET", "/name"), Column::text("TOOL", "/tool"), Column::text("OPERATIONS", "/operations")];

/// Lists targets.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_targets(args: &TargetsArgs) -> CommandResult {
    print_rows(&args.remote.client().get("/api/v1/tools")?, "targets", COLUMNS, &args.remote.output)
}
