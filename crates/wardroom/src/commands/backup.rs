//! `wardroom backup`: copies a data folder, beside a running server or without one. See [`wardroom_roles::backup`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::HumanBytes;
use serde_json::json;
use wardroom_roles::backup::{Backup, BackupOptions, CopyProgress, create_backup};
use wardroom_roles::config;
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::database_path;
use wardroom_roles::state_database::has_state;

use crate::blocking::block_on;
use crate::copy_progress::{copy_progress_bar, show_progress};
use crate::signals;
use wardroom_cli::output::{CommandResult, print_document, print_line};
use wardroom_cli::presentation::OutputArgs;

/// Back up a data folder, beside a running server or without one.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom backup --data /var/lib/wardroom --to /mnt/backup --keep 7
  wardroom backup --data /var/lib/wardroom --to /mnt/backup --dry-run")]
pub(crate) struct BackupArgs {
    /// The data folder.
    #[arg(long)]
    data: PathBuf,
    /// Folder of backups; `backup.to` of the configuration by default.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Number of backups to keep in the folder; all if omitted.
    #[arg(long)]
    keep: Option<u32>,
    /// Print what would be copied without copying.
    #[arg(long)]
    dry_run: bool,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    /// Exit with the supervisor that started this process.
    #[arg(long, hide = true)]
    supervised: bool,
}

pub(crate) fn run(args: BackupArgs) -> CommandResult {
    if args.supervised {
        signals::kill_with_parent()?;
        signals::ignore_hangup()?;
        signals::unblock()?;
    }
    let config = config::load(args.config.as_deref())?;
    let data = &args.data;
    if !has_state(data) {
        bail!("{} is not a data folder: {} is missing", data.display(), database_path(data).display());
    }
    let to = args.to.clone().or_else(|| config.backup.to.clone());
    let to = to.context("no destination; give --to, or set backup.to in the configuration")?;
    let absolute = std::path::absolute(&to).ok().zip(std::path::absolute(data).ok());
    if absolute.is_some_and(|(to, data)| to.starts_with(data)) {
        bail!("--to {} lies inside the data folder; put it on another disk", to.display());
    }
    // A backup may run beside a server, and a server may start beside a backup; a folder that is being restored is not
    // complete. The lock is not kept, so that a long backup does not keep a server from starting.
    drop(DataLock::acquire_beside_server(data, "backup")?);
    let options = BackupOptions { data: args.data, to, keep: args.keep, dry_run: args.dry_run };
    let bar = copy_progress_bar()?;
    let mut on_progress = |progress: CopyProgress<'_>| show_progress(&bar, progress);
    let backup = block_on(async { Ok(create_backup(&config, &options, &mut on_progress).await?) })?;
    bar.finish_and_clear();
    match print_backup(&backup, args.dry_run, &args.output) {
        // The backup is complete even if no process reads the supervisor's stdout; a failure would have it made again.
        Err(_) if args.supervised => Ok(ExitCode::SUCCESS),
        printed => printed,
    }
}

fn print_backup(backup: &Backup, dry_run: bool, output: &OutputArgs) -> CommandResult {
    let Backup { path, manifest, linked_bytes, removed } = backup;
    let (files, bytes) = (manifest.files.len(), manifest.total_bytes());
    if output.is_document() {
        let document = json!({ "path": path, "taken_at": manifest.taken_at, "files": files, "bytes": bytes,
            "linked_bytes": linked_bytes, "lake_elsewhere": manifest.lake_elsewhere, "removed": removed,
            "dry_run": dry_run });
        print_document(&document, &output.presentation())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (size, copied) = (HumanBytes(bytes), HumanBytes(bytes - linked_bytes));
    let would_be = if dry_run { "would be " } else { "" };
    print_line(format!("{} {would_be}{files} files, {size}, of which {copied} new", path.display()))?;
    if let Some(uri) = &manifest.lake_elsewhere {
        print_line(format!("the tables on {uri} are not included; back them up separately"))?;
    }
    for old in removed {
        print_line(format!("{} removed", old.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
