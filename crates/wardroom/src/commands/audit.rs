//! `wardroom audit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::audit_head::key_id;
use wardroom_roles::audit_log::{accept_restored_log, describe, verify_audit_log};
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::tokens;

use crate::blocking::block_on;
use crate::output::{CommandResult, print_json, print_line};

/// The audit log.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditCommand {
    /// Verify the audit log against what the executor has signed; exit 1 unless it is intact.
    ///
    /// Works beside a running server and needs no secret.
    Verify {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// File with the public key that must have signed: a copy of the executor's audit-public-key.pem that is kept
        /// elsewhere. Without it the one in the data folder is used.
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Accept an audit log that is not the one that was signed, such as a restored copy of the database.
    ///
    /// The server must be stopped. The acceptance is recorded in the log and signed, and every verification shows it.
    AcceptRestore {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Why the log differs from the signed one.
        #[arg(long)]
        reason: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: AuditArgs) -> CommandResult {
    match args.command {
        AuditCommand::Verify { data, public_key, json } => verify(&data, public_key.as_deref(), json),
        AuditCommand::AcceptRestore { data, reason, json } => accept_restore(&data, &reason, json),
    }
}

fn verify(data: &Path, public_key: Option<&Path>, json: bool) -> CommandResult {
    let found = block_on(async { Ok(verify_audit_log(data, public_key).await?) })?;
    if json {
        let mut report = json!(found);
        if let Some(fault) = found.faults.first() {
            report["error"] = json!(fault.detail);
        }
        print_json(report)?;
    } else {
        for line in describe(&found) {
            print_line(line)?;
        }
    }
    Ok(if found.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn accept_restore(data: &Path, reason: &str, json: bool) -> CommandResult {
    anyhow::ensure!(data.is_dir(), "--data: {} is not a data folder", data.display());
    anyhow::ensure!(!reason.trim().is_empty(), "--reason: it is empty; say why the log differs from the signed one");
    let _lock = DataLock::acquire(data, "audit accept-restore")?;
    let accepted = block_on(async { Ok(accept_restored_log(data, tokens::local_user(), reason).await?) })?;
    let Some(accepted) = accepted else {
        if json {
            print_json(json!({ "accepted": false }))?;
        } else {
            print_line("nothing to accept: the log is the one that was signed, or was never signed")?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if json {
        let head = &accepted.signed.head;
        print_json(json!({ "accepted": true, "sequence": head.position.sequence,
            "signed_before": head.previous.sequence, "at": head.at, "key_id": key_id(&accepted.signed.public_key),
            "public_key": accepted.signed.public_key, "settled": accepted.settled.faults }))?;
    } else {
        print_line(accepted.describe(data))?;
    }
    Ok(ExitCode::SUCCESS)
}
