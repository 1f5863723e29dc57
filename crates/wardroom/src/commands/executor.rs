//! `wardroom executor`: the executor process.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output::CommandResult;
use crate::signals;

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
    signals::unblock()?;
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    wardroom_roles::executor::run(&args.data, &args.executor_config)?;
    Ok(ExitCode::SUCCESS)
}
