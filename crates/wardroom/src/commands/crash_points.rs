//! `wardroom crash-points`.

use std::process::ExitCode;

use clap::Args;
use wardroom_roles::crash;

use wardroom_cli::output::{CommandResult, print_line};

/// List the crash points that crash tests can trigger.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct CrashPointsArgs {}

pub(crate) fn run(_: CrashPointsArgs) -> CommandResult {
    for point in crash::points() {
        print_line(point)?;
    }
    Ok(ExitCode::SUCCESS)
}
