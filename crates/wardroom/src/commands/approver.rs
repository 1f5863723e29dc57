//! `wardroom approver`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::Principal;
use wardroom_roles::executor::create_key;

use crate::output::{CommandResult, print_json, print_line};

/// Keys of approvers.
#[derive(Clone, Debug, Args)]
pub(crate) struct ApproverArgs {
    #[command(subcommand)]
    command: ApproverCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ApproverCommand {
    /// Create an Ed25519 key that signs approvals, and print the line for `allowed-signers` of the executor's file.
    ///
    /// An SSH key that the approver has already, of any type and in any agent, does as well.
    Keygen {
        /// Name of the approver in plans and in the audit log.
        #[arg(long)]
        principal: String,
        /// File of the private key (mode 0600); the public key goes beside it, with `.pub`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: ApproverArgs) -> CommandResult {
    let ApproverCommand::Keygen { principal, out, json } = args.command;
    let principal = Principal::new(principal).map_err(|error| anyhow::anyhow!("--principal: {error}"))?;
    let key = create_key(&out, &principal)?;
    if json {
        print_json(json!({ "principal": principal, "key": out, "public_key": key.public_key_file,
            "fingerprint": key.fingerprint, "allowed_signers": key.allowed_signers }))?;
    } else {
        print_line(key.allowed_signers)?;
    }
    Ok(ExitCode::SUCCESS)
}
