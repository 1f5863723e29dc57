//! `wardroom audit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::audit_head::{LogVerification, key_id};
use wardroom_roles::audit_log::{
    accept_restored_log, describe, export_audit_log, read_entries, verify_audit_export, verify_audit_log,
};
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::tokens;

use crate::blocking::block_on;
use wardroom_cli::audit_remote::{self, AuditFilterArgs, ENTRY_COLUMNS};
use wardroom_cli::client::RemoteOutputArgs;
use wardroom_cli::output::{CommandResult, print_document, print_line, print_result, print_rows};
use wardroom_cli::presentation::OutputArgs;

/// The audit log: of a data folder with --data, else of a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditCommand {
    /// List entries, oldest first.
    #[command(after_help = "\
Examples:
  wardroom audit list --since 24h --action approve
  wardroom audit list --incident INC-1 -o json | jq '.entries[].decision'
  wardroom audit list --data /var/lib/wardroom --from 1")]
    List {
        /// The data folder, in place of a server.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Sequence number of the first entry. Default: the last 100. With --data.
        #[arg(long, requires = "data")]
        from: Option<i64>,
        /// Maximum number of entries.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        filter: AuditFilterArgs,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Show one entry.
    #[command(after_help = "Example:\n  wardroom audit show 17 -o yaml")]
    Show {
        /// The data folder, in place of a server.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Sequence number.
        sequence: i64,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Write all entries to a new file: with --data also the signed heads, so that it can be verified by itself.
    #[command(after_help = "\
Examples:
  wardroom audit export --data /var/lib/wardroom --out audit.jsonl
  wardroom audit export > entries.jsonl")]
    Export {
        /// The data folder, in place of a server.
        #[arg(long, requires = "out")]
        data: Option<PathBuf>,
        /// The file; from a server, standard output by default.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Verify the audit log against what the executor has signed; exit 1 unless it is intact.
    ///
    /// With --data or --file it is verified here, works beside a running server and needs no secret. Else the server is
    /// asked to verify its own log, which proves less.
    #[command(after_help = "\
Examples:
  wardroom audit verify --data /var/lib/wardroom --public-key kept-elsewhere.pem
  wardroom audit verify --file audit.jsonl --heads heads.jsonl
  wardroom audit verify")]
    Verify {
        /// The data folder.
        #[arg(long, conflicts_with = "file")]
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
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Accept an audit log that is not the one that was signed, such as a restored copy of the database.
    ///
    /// The server must be stopped. The acceptance is recorded in the log and signed, and every verification shows it.
    #[command(after_help = "\
Example:
  wardroom audit accept-restore --data /var/lib/wardroom --reason 'restored the copy of Monday'")]
    AcceptRestore {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// Why the log differs from the signed one.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(args: AuditArgs) -> CommandResult {
    match args.command {
        AuditCommand::List { data: Some(data), from, limit, filter: _, remote } => {
            let entries = block_on(async { Ok(read_entries(&data, from, limit).await?) })?;
            print_rows(&json!({ "entries": entries }), "entries", ENTRY_COLUMNS, &remote.output)
        }
        AuditCommand::List { data: None, limit, filter, remote, .. } => {
            audit_remote::list(&remote.client(), &filter, limit as usize, &remote.output)
        }
        AuditCommand::Show { data: Some(data), sequence, remote } => show(&data, sequence, &remote.output),
        AuditCommand::Show { data: None, sequence, remote } => {
            audit_remote::show(&remote.client(), sequence, &remote.output)
        }
        AuditCommand::Export { data: Some(data), out: Some(out), remote } => {
            let entries = block_on(async { Ok(export_audit_log(&data, &out).await?) })?;
            let message = format!("{entries} entries written to {}", out.display());
            print_result(&json!({ "entries": entries, "file": out }), message, &remote.output)
        }
        AuditCommand::Export { out, remote, .. } => {
            audit_remote::export(&remote.client(), out.as_deref(), &remote.output)
        }
        AuditCommand::Verify { data: None, file: None, heads, public_key, remote } => {
            let needs_log = heads.is_some() || public_key.is_some();
            anyhow::ensure!(!needs_log, "--heads and --public-key verify the log here: give --data or --file, too");
            audit_remote::verify(&remote.client(), &remote.output)
        }
        AuditCommand::Verify { data, file, heads, public_key, remote } => {
            let (key, heads) = (public_key.as_deref(), heads.as_deref());
            let found = match (data, file) {
                (Some(data), _) => block_on(async { Ok(verify_audit_log(&data, key, heads).await?) })?,
                (None, file) => verify_audit_export(&file.unwrap_or_default(), key, heads)?,
            };
            report(&found, &remote.output)
        }
        AuditCommand::AcceptRestore { data, reason, output } => accept_restore(&data, &reason, &output),
    }
}

fn show(data: &Path, sequence: i64, output: &OutputArgs) -> CommandResult {
    let entries = block_on(async { Ok(read_entries(data, Some(sequence), 1).await?) })?;
    let found = entries.into_iter().next().filter(|entry| entry["sequence"] == sequence);
    audit_remote::print_entry(&found.with_context(|| format!("there is no entry {sequence}"))?, output)
}

fn report(found: &LogVerification, output: &OutputArgs) -> CommandResult {
    if output.is_document() {
        let mut report = json!(found);
        if let Some(fault) = found.faults.first() {
            report["error"] = json!(fault.detail);
        }
        print_document(&report, &output.presentation())?;
    } else {
        for line in describe(found) {
            print_line(line)?;
        }
    }
    Ok(if found.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn accept_restore(data: &Path, reason: &str, output: &OutputArgs) -> CommandResult {
    anyhow::ensure!(data.is_dir(), "--data: {} is not a data folder", data.display());
    anyhow::ensure!(!reason.trim().is_empty(), "--reason: it is empty; say why the log differs from the signed one");
    let _lock = DataLock::acquire(data, "audit accept-restore")?;
    let accepted = block_on(async { Ok(accept_restored_log(data, tokens::local_user(), reason).await?) })?;
    let Some(accepted) = accepted else {
        let message = "nothing to accept: the log is the one that was signed, or was never signed";
        return print_result(&json!({ "accepted": false }), message, output);
    };
    let head = &accepted.signed.head;
    let document = json!({ "accepted": true, "sequence": head.position.sequence,
        "signed_before": head.previous.sequence, "at": head.at, "key_id": key_id(&accepted.signed.public_key),
        "public_key": accepted.signed.public_key, "settled": accepted.settled.faults });
    print_result(&document, accepted.describe(data), output)
}
