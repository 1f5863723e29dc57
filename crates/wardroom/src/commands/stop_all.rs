//! `wardroom stop-all`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use wardroom_roles::executor::request_stop;
use wardroom_roles::tokens;

use crate::client::RemoteJsonArgs;
use crate::output::CommandResult;

/// Stop all actions at once, until `wardroom resume`.
///
/// Nothing is begun from then on. What a target is doing already is not interrupted.
#[derive(Clone, Debug, Args)]
pub(crate) struct StopAllArgs {
    /// Why, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// Stop through the data folder on this machine, for a server that does not respond.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteJsonArgs,
}

pub(crate) fn run(args: StopAllArgs) -> CommandResult {
    let state = match &args.data {
        Some(data) => {
            anyhow::ensure!(data.is_dir(), "--data: {} is not a data folder", data.display());
            request_stop(data, &tokens::local_user(), &args.reason)?;
            json!({ "stopped": true, "by": tokens::local_user(), "reason": args.reason })
        }
        None => args.remote.client().post("/api/v1/stop-all", &json!({ "reason": args.reason }))?,
    };
    args.remote.print(&state, "all actions are stopped")?;
    Ok(ExitCode::SUCCESS)
}
