//! `wardroom stop-all`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use wardroom_roles::executor::request_stop;
use wardroom_roles::tokens;

use wardroom_cli::client::RemoteOutputArgs;
use wardroom_cli::output::{CommandResult, print_result};
use wardroom_cli::stop_all::stop_all;

/// Stop all actions at once, until `wardroom resume`.
///
/// Nothing is begun from then on. What a target is doing already is not interrupted.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom stop-all --reason 'restarts make it worse'
  wardroom stop-all --data /var/lib/wardroom")]
pub(crate) struct StopAllArgs {
    /// Why, for the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Stop through the data folder on this machine, for a server that does not respond.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

pub(crate) fn run(args: StopAllArgs) -> CommandResult {
    let state = match &args.data {
        Some(data) => {
            anyhow::ensure!(data.is_dir(), "--data: {} is not a data folder", data.display());
            request_stop(data, &tokens::local_user(), &args.reason)?;
            json!({ "stopped": true, "by": tokens::local_user(), "reason": args.reason })
        }
        None => stop_all(&args.remote.client(), &args.reason)?,
    };
    print_result(&state, "all actions are stopped", &args.remote.output)
}
