//! `wardroom audit`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_roles::database_path;

use crate::blocking::{block_on, open_store};
use crate::output::{CommandResult, print_json, print_line};

/// The audit log.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditCommand {
    /// Verify the hash chain; exit 1 if it is broken.
    Verify {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: AuditArgs) -> CommandResult {
    let AuditCommand::Verify { data, json } = args.command;
    if !database_path(&data).exists() {
        bail!("there is no audit log in {}", data.display());
    }
    let verified = block_on(async { Ok(open_store(&data).await?.verify_audit().await?) });
    // An unreadable database counts as a broken chain.
    let (entries, ok, first_broken, error) = match verified {
        Ok(verified) => (verified.entries, verified.ok, verified.first_broken, None),
        Err(error) => (0, false, Some(1), Some(format!("{error:#}"))),
    };
    if json {
        let mut report = json!({ "entries": entries, "ok": ok, "first_broken": first_broken });
        if let Some(error) = &error {
            report["error"] = json!(error);
        }
        print_json(report)?;
    } else if ok {
        print_line(format!("{entries} entries, chain intact"))?;
    } else {
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        print_line(format!("chain broken at entry {}{error}", first_broken.unwrap_or_default()))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
