//! `wardroom lake`: table usage, maintenance, verification and redrive.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::lake_maintain::{self, MaintainArgs};
use super::lake_verify::{self, VerifyArgs};
use crate::client::RemoteJsonArgs;
use crate::output::{CommandResult, print_json, print_line};

/// Show the usage of each table: files, rows, bytes, and rows past retention.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LakeArgs {
    #[command(subcommand)]
    command: Option<LakeCommand>,
    #[command(flatten)]
    remote: RemoteJsonArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum LakeCommand {
    /// Compact small files, expire rows past retention, vacuum unreferenced files; the server does it periodically.
    Maintain(MaintainArgs),
    /// Read all files and compare them with their checksums. Exits with 1 if a file is damaged or missing.
    Verify(VerifyArgs),
    /// Validate the quarantined records of a request again, with the current limits.
    Redrive(RedriveArgs),
}

#[derive(Clone, Debug, Args)]
struct RedriveArgs {
    /// Bus offset of the request: `offset` in silver.quarantine.
    offset: u64,
    #[command(flatten)]
    remote: RemoteJsonArgs,
}

pub(crate) fn run(args: LakeArgs) -> CommandResult {
    match args.command {
        Some(LakeCommand::Maintain(args)) => lake_maintain::run(&args),
        Some(LakeCommand::Verify(args)) => lake_verify::run(&args),
        Some(LakeCommand::Redrive(args)) => redrive(&args),
        None => show_usage(&args.remote),
    }
}

fn show_usage(remote: &RemoteJsonArgs) -> CommandResult {
    let response = remote.client().get("/api/v1/lake")?;
    if remote.json {
        print_json(&response)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(format!("{:20} {:>6} {:>14} {:>16} {:>14}", "table", "files", "rows", "bytes", "expired rows"))?;
    for table in response["tables"].as_array().into_iter().flatten() {
        let number = |key: &str| table[key].as_u64().unwrap_or_default();
        let (name, files) = (table["table"].as_str().unwrap_or_default(), number("files"));
        let (rows, bytes, expired) = (number("rows"), number("bytes"), number("outdated"));
        print_line(format!("{name:20} {files:>6} {rows:>14} {bytes:>16} {expired:>14}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn redrive(args: &RedriveArgs) -> CommandResult {
    let offset = args.offset;
    let response = args.remote.client().post(&format!("/api/v1/quarantine/{offset}/redrive"), &json!({}))?;
    let message = format!("accepted records of {offset} were appended to the bus at {}", response["redriven_as"]);
    args.remote.print(&response, &message)?;
    Ok(ExitCode::SUCCESS)
}
