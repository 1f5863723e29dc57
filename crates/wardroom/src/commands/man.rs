//! `wardroom man`.

use clap::CommandFactory;
use wardroom_cli::man;
use wardroom_cli::output::CommandResult;

pub(crate) use wardroom_cli::man::ManArgs;

pub(crate) fn run(args: ManArgs) -> CommandResult {
    man::run(&args, super::Cli::command())
}
