//! `wardroom backup`: copies a data folder, beside a running server or without one. See [`crate::data_copy`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::HumanBytes;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use wardroom_roles::{backup_status, database_path};

use crate::backup_manifest;
use crate::blocking::block_on;
use crate::data_copy::{Backup, copy_data_folder};
use crate::output::{CommandResult, print_line};
use crate::{configuration, signals};

/// Attempts to copy a data folder before the bus deletes records that the copy needs.
const MAX_ATTEMPTS: usize = 3;
/// Lock file in the folder of backups, held while one is made.
const LOCK_FILE: &str = ".lock";

/// Back up a data folder, beside a running server or without one.
#[derive(Clone, Debug, Args)]
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
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Die with the supervisor that started this process.
    #[arg(long, hide = true)]
    supervised: bool,
}

pub(crate) fn run(args: BackupArgs) -> CommandResult {
    if args.supervised {
        signals::die_with_parent()?;
        signals::unblock()?;
    }
    let config = configuration::load(args.config.as_deref())?;
    let data = &args.data;
    if !database_path(data).exists() {
        bail!("{} is not a data folder: {} is missing", data.display(), database_path(data).display());
    }
    let to = args.to.clone().or_else(|| config.backup.to.clone());
    let to = to.context("no destination; give --to, or set backup.to in the configuration")?;
    let absolute = std::path::absolute(&to).ok().zip(std::path::absolute(data).ok());
    if absolute.is_some_and(|(to, data)| to.starts_with(data)) {
        bail!("--to {} lies inside the data folder; put it on another disk", to.display());
    }
    let _lock = if args.dry_run { None } else { Some(lock(&to)?) };
    for attempt in 1..=MAX_ATTEMPTS {
        if let Some(backup) = block_on(copy_data_folder(data, &config, &to, args.dry_run))? {
            return finish(&backup, &to, &args);
        }
        if attempt < MAX_ATTEMPTS {
            tracing::warn!(attempt, "the bus deleted records that the backup needs; retrying");
        }
    }
    bail!("the bus deletes records faster than they can be copied; raise bus.retention-hours")
}

/// Locks the folder of backups, and removes incomplete backups.
fn lock(to: &Path) -> anyhow::Result<Flock<File>> {
    backup_manifest::create_private_parent(&to.join(LOCK_FILE)).with_context(|| format!("create {}", to.display()))?;
    let file = File::create(to.join(LOCK_FILE))?;
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        bail!("another backup to {} is in progress", to.display());
    };
    for entry in std::fs::read_dir(to)? {
        let entry = entry?;
        let incomplete = entry.file_name().to_string_lossy().starts_with('.') && entry.file_type()?.is_dir();
        if incomplete {
            std::fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(lock)
}

/// Records the backup for the metrics, removes old backups, and prints the result.
fn finish(backup: &Backup, to: &Path, args: &BackupArgs) -> CommandResult {
    let Backup { path, manifest, linked_bytes } = backup;
    let (files, bytes) = (manifest.files.len(), manifest.total_bytes());
    let mut removed = Vec::new();
    if !args.dry_run {
        backup_status::record(&args.data, manifest.taken_at, bytes)?;
        let existing = backup_manifest::list_backups(to)?;
        let keep = args.keep.filter(|keep| *keep > 0).map_or(existing.len(), |keep| keep as usize);
        for old in &existing[..existing.len().saturating_sub(keep)] {
            std::fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
            removed.push(old.display().to_string());
        }
    }
    if args.json {
        print_line(json!({ "path": path, "taken_at": manifest.taken_at, "files": files, "bytes": bytes,
            "linked_bytes": linked_bytes, "lake_elsewhere": manifest.lake_elsewhere, "removed": removed,
            "dry_run": args.dry_run }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (size, copied) = (HumanBytes(bytes), HumanBytes(bytes - linked_bytes));
    let would_be = if args.dry_run { "would be " } else { "" };
    print_line(format!("{} {would_be}{files} files, {size}, of which {copied} new", path.display()))?;
    if let Some(uri) = &manifest.lake_elsewhere {
        print_line(format!("the tables on {uri} are not included; back them up separately"))?;
    }
    for old in removed {
        print_line(format!("{old} removed"))?;
    }
    Ok(ExitCode::SUCCESS)
}
