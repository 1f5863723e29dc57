//! `wardroom executor`: the executor process.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use wardroom_roles::executor::{self, ExecutorError};
use wardroom_roles::supervisor::CONFIG_EXIT_CODE;

use crate::{logging, signals};
use wardroom_cli::output::CommandResult;

/// The executor process; started by `serve`.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct ExecutorArgs {
    /// The data folder.
    #[arg(long)]
    data: PathBuf,
    /// The executor's configuration file.
    #[arg(long)]
    executor_config: PathBuf,
}

pub(crate) fn run(args: ExecutorArgs) -> CommandResult {
    signals::ignore_hangup()?;
    signals::unblock()?;
    logging::init_executor()?;
    match executor::run(&args.data, &args.executor_config) {
        // The supervisor says once what is wrong, and waits until the file changes.
        Err(error @ ExecutorError::Config(_)) => {
            tracing::error!(%error, "executor cannot start; nothing can be approved until the file is corrected");
            Ok(ExitCode::from(CONFIG_EXIT_CODE))
        }
        ended => Ok(ended.map(|()| ExitCode::SUCCESS)?),
    }
}
