//! `wardroom tool-runner`: starts programs for the executor.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use wardroom_roles::executor;

use crate::{logging, signals};
use wardroom_cli::output::CommandResult;

/// The process that starts programs of tools; started by the executor.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct ToolRunnerArgs {
    /// The executor's configuration file.
    #[arg(long)]
    executor_config: PathBuf,
}

pub(crate) fn run(args: ToolRunnerArgs) -> CommandResult {
    signals::ignore_hangup()?;
    signals::unblock()?;
    logging::init_executor()?;
    executor::run_tool_runner(&args.executor_config)?;
    Ok(ExitCode::SUCCESS)
}
