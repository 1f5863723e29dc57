//! `wardroom restore`: restores a data folder from a backup, and optionally verifies it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use wardroom_roles::{Config, Lake, ReadOnlyBus, Store, database_path};

use crate::backup_manifest::{self, Manifest};
use crate::blocking::block_on;
use crate::configuration;
use crate::data_copy::{contiguous_range, progress_bar};
use crate::output::{CommandResult, print_line};

/// Restore a data folder from a backup.
#[derive(Clone, Debug, Args)]
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
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: RestoreArgs) -> CommandResult {
    let config = configuration::load(args.config.as_deref())?;
    let from = find_backup(&args.from)?;
    let manifest = Manifest::read(&from)?;
    let lake = config.lake.folder(&args.data)?;
    for folder in [Some(&args.data), lake.as_ref()].into_iter().flatten() {
        let empty = !folder.exists() || std::fs::read_dir(folder)?.next().is_none();
        ensure!(empty, "{} is not empty; restore to a new folder and start the server on that", folder.display());
    }
    copy_files(&from, &manifest, &args.data, lake.as_deref())?;
    let folder = File::open(&args.data).with_context(|| args.data.display().to_string())?;
    nix::unistd::syncfs(&folder)?;
    let verified = if args.verify { Some(block_on(verify(&args.data, &config))?) } else { None };
    let files = manifest.files.len();
    if args.json {
        print_line(json!({ "from": from, "data": args.data, "taken_at": manifest.taken_at, "files": files,
            "lake_elsewhere": manifest.lake_elsewhere, "verified": verified }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(format!("{}: {files} files as of {}", args.data.display(), manifest.taken_at))?;
    if let Some(verified) = verified {
        let (bus, entries) = (&verified["bus"], &verified["audit_entries"]);
        print_line(format!("bus     records {} to {}", bus["start"], bus["end"]))?;
        print_line(format!("state   intact; {entries} audit entries, chain intact"))?;
        for table in verified["tables"].as_array().into_iter().flatten() {
            let name = table["table"].as_str().unwrap_or_default();
            let (version, files, rows) = (&table["version"], &table["files"], &table["rows"]);
            print_line(format!("{name:20} version {version}, {files} files, {rows} rows"))?;
        }
    }
    if let Some(uri) = manifest.lake_elsewhere {
        print_line(format!("the tables are on {uri} and not part of the backup"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the backup to restore: the folder itself, or the newest backup in it.
fn find_backup(from: &Path) -> anyhow::Result<PathBuf> {
    if Manifest::read(from).is_ok() {
        return Ok(from.to_owned());
    }
    match backup_manifest::list_backups(from)?.pop() {
        Some(newest) => Ok(newest),
        None => bail!("{} is not a backup and contains none", from.display()),
    }
}

/// Copies every file of the manifest and compares it with its checksum.
fn copy_files(from: &Path, manifest: &Manifest, data: &Path, lake: Option<&Path>) -> anyhow::Result<()> {
    let bar = progress_bar()?;
    bar.set_length(manifest.total_bytes());
    for (name, expected) in &manifest.files {
        bar.set_message(name.clone());
        let to = match (name.strip_prefix("lake/"), lake) {
            (Some(below), Some(lake)) => lake.join(below),
            _ => data.join(name),
        };
        let copied = backup_manifest::copy_file(&from.join(name), &to, |bytes| bar.inc(bytes))?;
        ensure!(
            copied == *expected,
            "{}: {name} is damaged: it has {} bytes with SHA-256 {}, expected {} and {}; use another backup",
            from.display(),
            copied.bytes,
            copied.sha256,
            expected.bytes,
            expected.sha256
        );
    }
    bar.finish_and_clear();
    Ok(())
}

/// Opens state, bus and tables like a server, and checks that they are intact and consistent with each other.
async fn verify(data: &Path, config: &Config) -> anyhow::Result<Value> {
    let store = Store::open(&database_path(data)).await?;
    if let Some(error) = store.integrity_check().await? {
        bail!("state: {error}");
    }
    let audit = store.verify_audit().await?;
    store.close().await;
    ensure!(audit.ok, "the audit log is broken at entry {}", audit.first_broken.unwrap_or_default());
    let (start, end) = contiguous_range(&ReadOnlyBus::open(&data.join("bus"))?)?;
    let mut tables = Vec::new();
    if config.lake.enabled
        && let Some(lake) = Lake::open_read_only(&config.lake, data).await?
    {
        let committed = lake.committed_offset().await?;
        let consistent = committed.is_none_or(|offset| (start..=end).contains(&offset) || start == end);
        ensure!(consistent, "the tables end at offset {committed:?}, but the bus has offsets {start} to {end}");
        for table in lake.verify_snapshot().await? {
            tables.push(json!({ "table": table.table, "version": table.version, "files": table.files,
                "rows": table.rows }));
        }
    }
    Ok(json!({ "bus": { "start": start, "end": end }, "audit_entries": audit.entries, "tables": tables }))
}
