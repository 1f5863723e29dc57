//! `wardroom audit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::audit_head::{LogVerification, key_id};
use wardroom_domain::visible_line;
use wardroom_roles::audit_log::{
    accept_restored_log, describe, export_audit_log, read_entries, verify_audit_export, verify_audit_log,
};
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
    /// List entries, oldest first.
    List {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Sequence number of the first entry. Default: the last 100.
        #[arg(long)]
        from: Option<i64>,
        /// Maximum number of entries.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one entry.
    Show {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Sequence number.
        sequence: i64,
    },
    /// Write all entries and signed heads to a new file, which can be verified without the data folder.
    Export {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verify the audit log against what the executor has signed; exit 1 unless it is intact.
    ///
    /// Works beside a running server and needs no secret.
    Verify {
        /// The data folder.
        #[arg(long, required_unless_present = "file", conflicts_with = "file")]
        data: Option<PathBuf>,
        /// A file of `wardroom audit export`, in place of the data folder.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// File with heads that the executor has published elsewhere, one a line: tells that log and ledger were put
        /// back together to an earlier state.
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
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
        AuditCommand::List { data, from, limit, json } => list(&data, from, limit, json),
        AuditCommand::Show { data, sequence } => show(&data, sequence),
        AuditCommand::Export { data, out, json } => {
            let entries = block_on(async { Ok(export_audit_log(&data, &out).await?) })?;
            if json {
                print_json(json!({ "entries": entries, "file": out }))?;
            } else {
                print_line(format!("{entries} entries written to {}", out.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Verify { data, file, heads, public_key, json } => {
            let (key, heads) = (public_key.as_deref(), heads.as_deref());
            let found = match (data, file) {
                (Some(data), _) => block_on(async { Ok(verify_audit_log(&data, key, heads).await?) })?,
                (None, file) => verify_audit_export(&file.unwrap_or_default(), key, heads)?,
            };
            report(&found, json)
        }
        AuditCommand::AcceptRestore { data, reason, json } => accept_restore(&data, &reason, json),
    }
}

fn list(data: &Path, from: Option<i64>, limit: u32, json: bool) -> CommandResult {
    let entries = block_on(async { Ok(read_entries(data, from, limit).await?) })?;
    if json {
        print_json(json!({ "entries": entries }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for entry in entries {
        let incident = entry["incident_id"].as_str().unwrap_or("-");
        let text = |field: &str| visible_line(entry[field].as_str().unwrap_or_default()).into_owned();
        let (at, principal, action) = (text("@timestamp"), text("principal"), text("action"));
        print_line(format!("{:>6}  {at}  {}  {principal}  {action}  {incident}", entry["sequence"], text("tenant")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(data: &Path, sequence: i64) -> CommandResult {
    let entries = block_on(async { Ok(read_entries(data, Some(sequence), 1).await?) })?;
    let found = entries.into_iter().next().filter(|entry| entry["sequence"] == sequence);
    print_json(found.with_context(|| format!("there is no entry {sequence}"))?)?;
    Ok(ExitCode::SUCCESS)
}

fn report(found: &LogVerification, json: bool) -> CommandResult {
    if json {
        let mut report = json!(found);
        if let Some(fault) = found.faults.first() {
            report["error"] = json!(fault.detail);
        }
        print_json(report)?;
    } else {
        for line in describe(found) {
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
