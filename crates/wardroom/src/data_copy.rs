//! Copies a data folder into a backup while a server may be writing to it.
//!
//! ```text
//! groups ─► checkpoint ─► state ─► tables ─► bus ─► dead letters ─► ledger ─► manifest
//! ```
//!
//! The parts of a data folder refer to each other, so the referring part is copied before the part it refers to. Group
//! offsets and the checkpoint define where reading resumes on the bus; they come first, then the tables, then the bus.
//! After a restore the tables may be ahead of the checkpoint, as after a crash, and the records beyond are read again.
//! The bus deletes old segments during the copy; if it deletes records that the copy needs, the whole copy is
//! discarded. The executor's ledger comes last, so that an approval used before the backup is never usable again.
//!
//! Immutable files are hard-linked from the previous backup, so a daily backup costs one day's data. A backup is
//! complete once its manifest exists; the manifest lists every file with its SHA-256.
//!
//! This runs in its own process: the sandboxed server can access neither the executor's ledger nor other folders.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use wardroom_roles::{Config, Lake, ReadOnlyBus, Store, clock, database_path};

use crate::backup_manifest::{FileEntry, Manifest, copy_file, create_private_parent, list_backups};

/// Records read from the bus at once.
const READ_BATCH_RECORDS: usize = 256;

/// A complete backup.
pub(crate) struct Backup {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    /// Bytes shared with the previous backup by hard links.
    pub(crate) linked_bytes: u64,
}

/// Copies a data folder to a new backup below `to`. Returns `None` if the bus deleted records that the copy needs.
pub(crate) async fn copy_data_folder(
    data: &Path,
    config: &Config,
    to: &Path,
    dry_run: bool,
) -> anyhow::Result<Option<Backup>> {
    let now = clock::now();
    let name = now.to_string().replace(':', "-");
    let partial = to.join(format!(".{name}"));
    let mut copy = DataCopy::new(&partial, list_backups(to)?.pop(), Manifest::new(now), dry_run)?;
    let groups = ReadOnlyBus::open(&data.join("bus"))?.min_committed()?;
    copy.copy_folder(&data.join("bus/groups"), "bus/groups")?;
    let first_needed = copy.copy_checkpoint(&data.join("checkpoint"))?.into_iter().chain(groups).min();
    copy.copy_database(data).await?;
    match config.lake.folder(data)? {
        None if config.lake.enabled => copy.manifest.lake_elsewhere = Some(config.lake.uri.clone()),
        Some(_) if config.lake.enabled => {
            if let Some(lake) = Lake::open_read_only(&config.lake, data).await? {
                for file in lake.snapshot_files().await? {
                    copy.link_or_copy(&file.path, format!("lake/{}", file.name))?;
                }
            }
        }
        _ => {}
    }
    let first_copied = copy.copy_bus(&data.join("bus"))?;
    copy.copy_folder(&data.join("dead-letters"), "dead-letters")?;
    copy.copy_folder(&data.join("executor"), "executor")?;
    copy.bar.finish_and_clear();
    let DataCopy { manifest, linked_bytes, .. } = copy;
    if first_needed.zip(first_copied).is_some_and(|(needed, copied)| copied > needed) {
        if !dry_run {
            std::fs::remove_dir_all(&partial)?;
        }
        return Ok(None);
    }
    let path = to.join(name);
    if !dry_run {
        // Order for durability: all files, then the manifest, then the final name.
        nix::unistd::syncfs(File::open(&partial)?)?;
        manifest.write(&partial)?;
        std::fs::rename(&partial, &path)?;
        File::open(to)?.sync_all()?;
    }
    Ok(Some(Backup { path, manifest, linked_bytes }))
}

/// A backup in progress.
struct DataCopy {
    to: PathBuf,
    /// The previous backup and its files.
    previous: Option<(PathBuf, BTreeMap<String, FileEntry>)>,
    manifest: Manifest,
    linked_bytes: u64,
    bar: ProgressBar,
    dry_run: bool,
}

impl DataCopy {
    fn new(to: &Path, previous: Option<PathBuf>, manifest: Manifest, dry_run: bool) -> anyhow::Result<Self> {
        if !dry_run {
            create_private_parent(&to.join("x")).with_context(|| format!("create {}", to.display()))?;
        }
        let previous = previous.and_then(|folder| Some((folder.clone(), Manifest::read(&folder).ok()?.files)));
        Ok(Self { to: to.to_owned(), previous, manifest, linked_bytes: 0, bar: progress_bar()?, dry_run })
    }

    /// Copies a file that may change later.
    fn copy(&mut self, from: &Path, name: String) -> anyhow::Result<()> {
        self.bar.set_message(name.clone());
        let entry = if self.dry_run {
            FileEntry { bytes: std::fs::metadata(from)?.len(), sha256: String::new() }
        } else {
            copy_file(from, &self.to.join(&name), |bytes| self.bar.inc(bytes))?
        };
        self.manifest.files.insert(name, entry);
        Ok(())
    }

    /// Hard-links an immutable file from the previous backup, or copies it if that does not have it.
    fn link_or_copy(&mut self, from: &Path, name: String) -> anyhow::Result<()> {
        let size = std::fs::metadata(from).with_context(|| from.display().to_string())?.len();
        let previous = self.previous.as_ref().and_then(|(folder, files)| {
            let entry = files.get(&name).filter(|entry| entry.bytes == size)?;
            Some((folder.join(&name), entry.clone()))
        });
        let Some((old, entry)) = previous else { return self.copy(from, name) };
        let to = self.to.join(&name);
        let linked = self.dry_run || create_private_parent(&to).and_then(|()| std::fs::hard_link(old, &to)).is_ok();
        if !linked {
            // The file system does not support hard links, or the link count is exhausted.
            return self.copy(from, name);
        }
        self.linked_bytes += size;
        self.manifest.files.insert(name, entry);
        Ok(())
    }

    /// Copies a folder. Skips files that are deleted meanwhile, and unfinished files (`.new`).
    fn copy_folder(&mut self, from: &Path, name: &str) -> anyhow::Result<()> {
        for (path, below) in list_files(from)? {
            if path.exists() && path.extension().is_none_or(|extension| extension != "new") {
                self.copy(&path, format!("{name}/{below}"))?;
            }
        }
        Ok(())
    }

    /// Copies the newest checkpoint with its journals, and returns its offset. Retries when a newer one replaces it.
    fn copy_checkpoint(&mut self, from: &Path) -> anyhow::Result<Option<u64>> {
        loop {
            let checkpoints = || -> std::io::Result<Vec<(u64, PathBuf)>> {
                let all = list_files(from)?
                    .into_iter()
                    .filter_map(|(path, below)| Some((below.strip_suffix(".state")?.parse::<u64>().ok()?, path)));
                let mut all: Vec<_> = all.collect();
                all.sort();
                Ok(all)
            };
            let Some((offset, state)) = checkpoints()?.pop() else { return Ok(None) };
            let folder = self.to.join("checkpoint");
            if !self.dry_run && folder.exists() {
                std::fs::remove_dir_all(&folder)?;
            }
            self.manifest.files.retain(|name, _| !name.starts_with("checkpoint/"));
            let copied = self.copy(&state, format!("checkpoint/{offset:020}.state"));
            let mut journals = list_files(from)?.into_iter().filter(|(_, below)| below.contains('/'));
            let journals = journals.try_for_each(|(path, below)| self.copy(&path, format!("checkpoint/{below}")));
            match copied.and(journals) {
                // The journals exist as long as their checkpoint does.
                Ok(()) if state.exists() => return Ok(Some(offset)),
                Err(error) if checkpoints()?.last().is_some_and(|(newest, _)| *newest == offset) => return Err(error),
                _ => {}
            }
        }
    }

    /// Copies a consistent snapshot of the state database.
    async fn copy_database(&mut self, data: &Path) -> anyhow::Result<()> {
        let name = "state/wardroom.db";
        let database = database_path(data);
        if self.dry_run {
            return self.copy(&database, name.to_owned());
        }
        let (snapshot, to) = (self.to.join("database"), self.to.join(name));
        let store = Store::open(&database).await?;
        store.copy_to(&snapshot).await?;
        store.close().await;
        self.copy(&snapshot, name.to_owned())?;
        std::fs::remove_file(&snapshot).with_context(|| to.display().to_string())
    }

    /// Copies the segments of the bus, and returns the first copied offset. Starts with the newest segment: the bus
    /// deletes the oldest first, so the copied segments have no gap.
    fn copy_bus(&mut self, from: &Path) -> anyhow::Result<Option<u64>> {
        let mut segments: Vec<_> = list_files(from)?.into_iter().filter(|(_, below)| below.ends_with(".seg")).collect();
        segments.sort();
        let mut first_offset = None;
        while let Some((path, below)) = segments.pop() {
            let name = format!("bus/{below}");
            // Only the newest segment is still written to.
            let copied = if first_offset.is_none() { self.copy(&path, name) } else { self.link_or_copy(&path, name) };
            match copied {
                Err(_) if !path.exists() => break,
                other => other?,
            }
            first_offset = below.strip_suffix(".seg").and_then(|base| base.parse().ok());
        }
        for (path, below) in list_files(&from.join("rest"))?.into_iter().filter(|(_, below)| below.ends_with(".rest")) {
            match self.link_or_copy(&path, format!("bus/rest/{below}")) {
                Err(_) if !path.exists() => {}
                other => other?,
            }
        }
        Ok(first_offset)
    }
}

/// A progress bar that counts bytes.
pub(crate) fn progress_bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {bytes} {binary_bytes_per_sec} {wide_msg}")?;
    Ok(ProgressBar::no_length().with_style(style))
}

/// Lists the files below a folder, recursively, with their relative paths.
fn list_files(folder: &Path) -> std::io::Result<Vec<(PathBuf, String)>> {
    fn walk(folder: &Path, below: &str, found: &mut Vec<(PathBuf, String)>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            match entry.file_type()? {
                kind if kind.is_dir() => walk(&entry.path(), &format!("{name}/"), found)?,
                kind if kind.is_file() => found.push((entry.path(), name)),
                _ => {}
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    if folder.is_dir() {
        walk(folder, "", &mut found)?;
    }
    found.sort();
    Ok(found)
}

/// Returns the first offset of a bus and the one after the last.
///
/// # Errors
/// Returns an error if an offset in between is missing.
pub(crate) fn contiguous_range(bus: &ReadOnlyBus) -> anyhow::Result<(u64, u64)> {
    let (mut start, mut next) = (None, 0);
    loop {
        let records = bus.read(next, READ_BATCH_RECORDS)?;
        if records.is_empty() {
            return Ok((start.unwrap_or_default(), next));
        }
        for record in records {
            if start.is_some() && record.offset != next {
                bail!("bus: records {next} to {} are damaged or missing", record.offset - 1);
            }
            start = start.or(Some(record.offset));
            next = record.offset + 1;
        }
    }
}
