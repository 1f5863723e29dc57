//! `wardroom restore`: a data folder from a backup, compared byte by byte and, if asked, looked through.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use wardroom_roles::{Config, Lake, ReadOnlyBus, Store, database};

use super::manifest::{self, Manifest};
use super::{bar, dense};
use crate::commands::{Done, block, say};
use crate::configuration;
use crate::options::RestoreArgs;

/// Restores a backup to an empty folder.
pub(crate) fn restore(args: &RestoreArgs) -> Done {
    let config = configuration::load(args.config.as_deref())?;
    let from = chosen(&args.from)?;
    let manifest = Manifest::read(&from)?;
    let lake = config.lake.folder(&args.data)?;
    for folder in [Some(&args.data), lake.as_ref()].into_iter().flatten() {
        let empty = !folder.exists() || std::fs::read_dir(folder)?.next().is_none();
        ensure!(empty, "{} is not empty; restore to a new folder and start the server on that", folder.display());
    }
    let bar = bar()?;
    bar.set_length(manifest.bytes());
    for (name, content) in &manifest.files {
        bar.set_message(name.clone());
        let to = match (name.strip_prefix("lake/"), &lake) {
            (Some(below), Some(lake)) => lake.join(below),
            _ => args.data.join(name),
        };
        let copied = manifest::copy(&from.join(name), &to, |bytes| bar.inc(bytes))?;
        ensure!(
            copied == *content,
            "{}: {name} is damaged: it has {} bytes with SHA-256 {}, and the manifest says {} and {}; use another backup",
            from.display(),
            copied.bytes,
            copied.sha256,
            content.bytes,
            content.sha256
        );
    }
    bar.finish_and_clear();
    let folder = std::fs::File::open(&args.data).with_context(|| args.data.display().to_string())?;
    nix::unistd::syncfs(&folder)?;
    let found = if args.verify { Some(block(verify(&args.data, &config))?) } else { None };
    let files = manifest.files.len();
    if args.json {
        say(json!({ "from": from, "data": args.data, "taken_at": manifest.taken_at, "files": files,
            "lake_elsewhere": manifest.lake_elsewhere, "verified": found }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("{}: {files} files as of {}", args.data.display(), manifest.taken_at))?;
    if let Some(found) = found {
        let (bus, audit) = (&found["bus"], &found["audit_entries"]);
        say(format!("bus     records {} to {}", bus["start"], bus["end"]))?;
        say(format!("state   sound; {audit} entries in the audit book, unbroken"))?;
        for table in found["tables"].as_array().into_iter().flatten() {
            let name = table["table"].as_str().unwrap_or_default();
            say(format!("{name:20} version {}, {} files, {} rows", table["version"], table["files"], table["rows"]))?;
        }
    }
    if let Some(uri) = manifest.lake_elsewhere {
        say(format!("the tables were on {uri} and are not in the backup"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The backup that is meant: a folder that is one, or the newest below it.
fn chosen(from: &Path) -> anyhow::Result<PathBuf> {
    if Manifest::read(from).is_ok() {
        return Ok(from.to_owned());
    }
    match manifest::list(from)?.pop() {
        Some(newest) => Ok(newest),
        None => bail!("{} is no backup, and there is none below it", from.display()),
    }
}

/// Opens everything as a server would, and looks through it.
async fn verify(data: &Path, config: &Config) -> anyhow::Result<Value> {
    let store = Store::open(&database(data)).await?;
    if let Some(wrong) = store.check().await? {
        bail!("state: {wrong}");
    }
    let audit = store.verify_audit().await?;
    store.close().await;
    ensure!(audit.ok, "the audit book is broken at entry {}", audit.first_broken.unwrap_or_default());
    let (start, end) = dense(&ReadOnlyBus::open(&data.join("bus"))?)?;
    let mut tables = Vec::new();
    if config.lake.enabled
        && let Some(lake) = Lake::look(&config.lake, data).await?
    {
        let reached = lake.reached().await?;
        let whole = reached.is_none_or(|reached| (start..=end).contains(&reached) || start == end);
        ensure!(whole, "the tables end at {reached:?}, and the bus holds {start} to {end}");
        for held in lake.check().await? {
            tables
                .push(json!({ "table": held.table, "version": held.version, "files": held.files, "rows": held.rows }));
        }
    }
    Ok(json!({ "bus": { "start": start, "end": end }, "audit_entries": audit.entries, "tables": tables }))
}
