//! `wardroom approver`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::Principal;
use wardroom_roles::executor::create_key;

use wardroom_cli::output::{CommandResult, print_result};
use wardroom_cli::presentation::OutputArgs;
use wardroom_cli::server_lists::{ApproversArgs, list_approvers};

/// Approvers and their keys.
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
    #[command(after_help = "Example:\n  wardroom approver keygen --principal alice --out alice.key")]
    Keygen {
        /// Name of the approver in plans and in the audit log.
        #[arg(long)]
        principal: String,
        /// File of the private key (mode 0600); the public key goes beside it, with `.pub`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List who may approve plans on a server, and what proves it.
    #[command(after_help = "Example:\n  wardroom approver list")]
    List(ApproversArgs),
}

pub(crate) fn run(args: ApproverArgs) -> CommandResult {
    let (principal, out, output) = match args.command {
        ApproverCommand::Keygen { principal, out, output } => (principal, out, output),
        ApproverCommand::List(args) => return list_approvers(&args),
    };
    let principal = Principal::new(principal).map_err(|error| anyhow::anyhow!("--principal: {error}"))?;
    let key = create_key(&out, &principal)?;
    let document = json!({ "principal": principal, "key": out, "public_key": key.public_key_file,
        "fingerprint": key.fingerprint, "allowed_signers": key.allowed_signers });
    print_result(&document, &key.allowed_signers, &output)
}
