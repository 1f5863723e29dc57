//! `wardroom policy show --server`: the rules that a server has in force.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::client::RemoteOutputArgs;
use crate::output::{CommandResult, print_document, print_line};

/// Which server, and how to print.
#[derive(Clone, Debug, Args)]
pub struct ServerPolicyArgs {
    /// The rules that a server has in force, in place of those of files.
    #[arg(long, conflicts_with_all = ["file", "config"])]
    pub server: bool,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Prints the rules as text, or everything about them with `-o json` and `-o yaml`.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn show_policy(args: &ServerPolicyArgs) -> CommandResult {
    let policy: Value = args.remote.client().get("/api/v1/policy")?;
    if args.remote.output.is_document() {
        print_document(&policy, &args.remote.output.presentation())?;
    } else {
        print_line(policy["text"].as_str().unwrap_or_default().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
