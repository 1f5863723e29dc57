//! `wardroom openapi`.

use std::process::ExitCode;

use clap::Args;

use wardroom_cli::output::{CommandResult, print_json};

/// Print the OpenAPI document.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct OpenapiArgs {}

pub(crate) fn run(_: OpenapiArgs) -> CommandResult {
    print_json(serde_json::to_string_pretty(&wardroom_roles::openapi())?)?;
    Ok(ExitCode::SUCCESS)
}
