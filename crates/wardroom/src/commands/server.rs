//! `wardroom server`: the sandboxed server process.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use wardroom_roles::config;
use wardroom_roles::data_lock::{DataLock, SERVE};
use wardroom_roles::supervisor::RESTART_EXIT_CODE;
use wardroom_roles::{AuthMode, ServeError, ServeOptions};

use super::serve::{ServeArgs, create_private_folder};
use crate::signals;
use wardroom_cli::output::CommandResult;

/// The sandboxed server process; started by `serve`.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct ServerArgs {
    /// Standard input is the socket on which the supervisor passes query workers.
    #[arg(long, hide = true)]
    query_workers: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(crate) fn run(args: ServerArgs) -> CommandResult {
    let (args, query_workers) = (args.serve, args.query_workers);
    signals::kill_with_parent()?;
    signals::unblock_except_hangup()?;
    let config = config::load(args.config.as_deref())?;
    let traces = args.log.init_server(&config)?;
    create_private_folder(&args.data)?;
    // Inherited from the supervisor; a server that is started without one locks the folder itself.
    let _lock = DataLock::acquire_unless_inherited(&args.data, SERVE)?;
    let options = ServeOptions {
        data: args.data.clone(),
        listen: args.listen,
        auth: if args.auth_enabled() { AuthMode::On } else { AuthMode::Off },
        admin_token_file: args.admin_token_file.clone(),
        executor: args.executor_config.is_some(),
        query_workers,
    };
    let mut stdout = std::io::stdout();
    let announce = |line: String| {
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            tracing::warn!(%error, "writing to stdout failed");
        }
    };
    let served = wardroom_roles::serve(options, config, announce, signals::shutdown_requested);
    traces.flush();
    match served {
        Err(error @ ServeError::LakeAvailable) => {
            tracing::info!("{error}");
            Ok(ExitCode::from(RESTART_EXIT_CODE))
        }
        served => Ok(served.map(|()| ExitCode::SUCCESS)?),
    }
}
