//! `wardroom query-worker`: a process that runs queries for the server.

use std::process::ExitCode;

use clap::Args;
use wardroom_roles::config;

use super::serve::ServeArgs;
use crate::signals;
use wardroom_cli::output::CommandResult;

/// A process that runs queries for the server; started by `serve`.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct QueryWorkerArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

pub(crate) fn run(args: QueryWorkerArgs) -> CommandResult {
    let args = args.serve;
    // Signals that stop the server stay blocked: it still answers queries while it drains.
    signals::kill_with_parent()?;
    args.log.init()?;
    let config = config::load(args.config.as_deref())?;
    wardroom_roles::run_query_worker(&config, &args.data)?;
    Ok(ExitCode::SUCCESS)
}
