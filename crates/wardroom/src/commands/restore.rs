//! `wardroom restore`: restores a data folder from a backup, and optionally verifies it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use wardroom_domain::audit_head::key_id;
use wardroom_roles::audit_log::{AcceptedRestore, AuditLogError, accept_restored_log};
use wardroom_roles::backup::{Manifest, VerificationReport, find_backup, restore_files, verify_data_folder};
use wardroom_roles::config;
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::{TableSnapshot, tokens};

use super::serve::create_private_folder;
use crate::blocking::block_on;
use crate::copy_progress::{copy_progress_bar, show_progress};
use wardroom_cli::output::{CommandResult, print_document, print_error, print_line};
use wardroom_cli::presentation::OutputArgs;

/// Restore a data folder from a backup.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  wardroom restore --from /mnt/backup --data /var/lib/wardroom --verify")]
pub(crate) struct RestoreArgs {
    /// A backup, or a folder of backups to restore the newest.
    #[arg(long)]
    from: PathBuf,
    /// The data folder to create: new or empty.
    #[arg(long)]
    data: PathBuf,
    /// Open and verify the restored data.
    #[arg(long)]
    verify: bool,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: RestoreArgs) -> CommandResult {
    let config = config::load(args.config.as_deref())?;
    let from = find_backup(&args.from)?;
    let manifest = Manifest::read(&from)?;
    create_private_folder(&args.data)?;
    let _lock = DataLock::acquire(&args.data, "restore")?;
    let bar = copy_progress_bar()?;
    bar.set_length(manifest.total_bytes());
    restore_files(&from, &manifest, &args.data, &config, &mut |progress| show_progress(&bar, progress))?;
    bar.finish_and_clear();
    let accepted = accept_audit_log(&args.data, &manifest)?;
    let verified =
        if args.verify { Some(block_on(async { Ok(verify_data_folder(&args.data, &config).await?) })?) } else { None };
    let files = manifest.files.len();
    if args.output.is_document() {
        let document = json!({ "from": from, "data": args.data, "taken_at": manifest.taken_at, "files": files,
            "lake_elsewhere": manifest.lake_elsewhere, "verified": verified.as_ref().map(verification_json),
            "audit_key_id": accepted.as_ref().map(|accepted| key_id(&accepted.signed.public_key)) });
        print_document(&document, &args.output.presentation())?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(format!("{}: {files} files as of {}", args.data.display(), manifest.taken_at))?;
    if let Some(verified) = verified {
        print_line(format!("bus     records {} to {}", verified.bus_start, verified.bus_end))?;
        print_line(format!("state   intact; {} audit entries, chain intact", verified.audit_entries))?;
        for table in verified.tables {
            let TableSnapshot { table, version, files, rows } = table;
            print_line(format!("{table:20} version {version}, {files} files, {rows} rows"))?;
        }
    }
    if let Some(accepted) = accepted {
        print_line(format!("audit   {}", accepted.describe(&args.data)))?;
    }
    if let Some(uri) = manifest.lake_elsewhere {
        print_line(format!("the tables are on {uri} and not part of the backup"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Records in the audit log and the executor's ledger that the log goes back in time, if it was signed. A broken chain
/// stays as it is, and so does every verification of it.
fn accept_audit_log(data: &Path, manifest: &Manifest) -> anyhow::Result<Option<AcceptedRestore>> {
    let reason = format!("restored from the backup of {}", manifest.taken_at);
    match block_on(async { Ok(accept_restored_log(data, tokens::local_user(), &reason).await) })? {
        Err(error @ AuditLogError::ChainBroken(_)) => {
            print_error(&anyhow::Error::from(error).context("the restored audit log is not intact"));
            Ok(None)
        }
        accepted => Ok(accepted?),
    }
}

fn verification_json(report: &VerificationReport) -> Value {
    let tables = report.tables.iter().map(
        |table| json!({ "table": table.table, "version": table.version, "files": table.files, "rows": table.rows }),
    );
    json!({ "bus": { "start": report.bus_start, "end": report.bus_end }, "audit_entries": report.audit_entries,
        "tables": tables.collect::<Vec<_>>() })
}
