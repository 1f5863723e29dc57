//! `wardroom completion`.

use clap::CommandFactory;
use wardroom_cli::completion;
use wardroom_cli::output::CommandResult;

pub(crate) use wardroom_cli::completion::CompletionArgs;

pub(crate) fn run(args: CompletionArgs) -> CommandResult {
    completion::run(&args, super::Cli::command())
}
