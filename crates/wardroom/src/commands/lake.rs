//! `wardroom lake`: table usage, maintenance, verification and redrive.

use clap::{Args, Subcommand};

use super::lake_maintain::{self, MaintainArgs};
use super::lake_verify::{self, VerifyArgs};
use wardroom_cli::client::RemoteOutputArgs;
use wardroom_cli::lake_usage::{self, RedriveArgs};
use wardroom_cli::output::CommandResult;

/// Show the usage of each table: files, rows, bytes, and rows past retention.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = "Example:\n  wardroom lake -o json")]
pub(crate) struct LakeArgs {
    #[command(subcommand)]
    command: Option<LakeCommand>,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum LakeCommand {
    #[command(after_help = "Example:\n  wardroom lake maintain --data /var/lib/wardroom --dry-run")]
    /// Compact small files, expire rows past retention, vacuum unreferenced files; the server does it periodically.
    Maintain(MaintainArgs),
    #[command(after_help = "Example:\n  wardroom lake verify --data /var/lib/wardroom")]
    /// Read all files and compare them with their checksums. Exits with 1 if a file is damaged or missing.
    Verify(VerifyArgs),
    #[command(after_help = "Example:\n  wardroom lake redrive 1024")]
    /// Validate the quarantined records of a request again, with the current limits.
    Redrive(RedriveArgs),
}

pub(crate) fn run(args: LakeArgs) -> CommandResult {
    match args.command {
        Some(LakeCommand::Maintain(args)) => lake_maintain::run(&args),
        Some(LakeCommand::Verify(args)) => lake_verify::run(&args),
        Some(LakeCommand::Redrive(args)) => lake_usage::redrive(&args),
        None => lake_usage::show_usage(&args.remote),
    }
}
