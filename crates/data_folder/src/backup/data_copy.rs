//! Copies a data folder into a backup while a server may be writing to it.
//!
//! ```text
//! groups ─► checkpoint ─► state ─► tables ─► dead letters ─► bus ─► ledger ─► manifest
//! ```
//!
//! The parts of a data folder refer to each other, so the referring part is copied before the part it refers to. Group
//! offsets and the checkpoint define where reading resumes on the bus; they come first, then the tables and the dead
//! letters, then the bus. After a restore the tables may be ahead of the checkpoint, as after a crash, and the records
//! beyond are read again. The bus deletes old segments during the copy; if it deletes records that the copy needs, the
//! whole copy is discarded. The executor's ledger comes last, so that an approval used before the backup is never
//! usable again.
//!
//! Immutable files are hard-linked from the previous backup, so a daily backup costs one day's data. A backup is
//! complete once its manifest exists; the manifest lists every file with its SHA-256.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use wardroom_bus::ReadOnlyBus;
use wardroom_executor::PRIVATE_KEY_FILE;
use wardroom_lake::Lake;
use wardroom_store::database_path;

use super::backup_error::BackupError;
use super::file_copy::{CopyProgress, copy_file, create_private_parent, list_files};
use super::manifest::{FileEntry, Manifest, list_backups};
use crate::state_database::{RequiredState, has_state, open_state};
use wardroom_config::Config;
use wardroom_process::clock;

/// A complete copy of a data folder.
pub(super) struct BackupCopy {
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    /// Bytes shared with the previous backup by hard links.
    pub(super) linked_bytes: u64,
}

/// Copies a data folder to a new backup below `to`. Returns `None` if the bus deleted records that the copy needs.
pub(super) async fn copy_data_folder(
    data: &Path,
    config: &Config,
    to: &Path,
    dry_run: bool,
    on_progress: &mut (dyn FnMut(CopyProgress<'_>) + Send),
) -> Result<Option<BackupCopy>, BackupError> {
    let now = clock::now();
    let name = now.to_string().replace(':', "-");
    let partial = to.join(format!(".{name}"));
    if !dry_run {
        create_private_parent(&partial.join("x"))
            .map_err(BackupError::io(|| format!("create {}", partial.display())))?;
    }
    let previous =
        list_backups(to)?.pop().and_then(|folder| Some((folder.clone(), Manifest::read(&folder).ok()?.files)));
    let manifest = Manifest::new(now);
    let mut copy = DataCopy { to: partial.clone(), previous, manifest, linked_bytes: 0, on_progress, dry_run };
    let groups = ReadOnlyBus::open(&data.join("bus"))?.min_committed()?;
    copy.copy_folder(&data.join("bus/groups"), "bus/groups")?;
    copy.copy_folder(&data.join("bus/epochs"), "bus/epochs")?;
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
    copy.copy_folder(&data.join("dead-letters"), "dead-letters")?;
    let first_copied = copy.copy_bus(&data.join("bus"))?;
    copy.copy_folder(&data.join("executor"), "executor")?;
    let DataCopy { manifest, linked_bytes, .. } = copy;
    if first_needed.zip(first_copied).is_some_and(|(needed, copied)| copied > needed) {
        if !dry_run {
            std::fs::remove_dir_all(&partial).map_err(BackupError::io(|| format!("remove {}", partial.display())))?;
        }
        return Ok(None);
    }
    let path = to.join(name);
    if !dry_run {
        // Order for durability: all files, then the manifest, then the final name.
        let synced = File::open(&partial).and_then(|folder| Ok(nix::unistd::syncfs(folder)?));
        synced.map_err(BackupError::io(|| format!("sync {}", partial.display())))?;
        manifest.write(&partial)?;
        let renamed = std::fs::rename(&partial, &path).and_then(|()| File::open(to)?.sync_all());
        renamed.map_err(BackupError::io(|| format!("rename {} to {}", partial.display(), path.display())))?;
    }
    Ok(Some(BackupCopy { path, manifest, linked_bytes }))
}

/// A backup in progress.
struct DataCopy<'a> {
    to: PathBuf,
    /// The previous backup and its files.
    previous: Option<(PathBuf, BTreeMap<String, FileEntry>)>,
    manifest: Manifest,
    linked_bytes: u64,
    on_progress: &'a mut (dyn FnMut(CopyProgress<'_>) + Send),
    dry_run: bool,
}

impl DataCopy<'_> {
    /// Copies a file that may change later.
    fn copy(&mut self, from: &Path, name: String) -> Result<(), BackupError> {
        (self.on_progress)(CopyProgress::File(&name));
        let entry = if self.dry_run {
            FileEntry { bytes: file_bytes(from)?, sha256: String::new() }
        } else {
            copy_file(from, &self.to.join(&name), |bytes| (self.on_progress)(CopyProgress::Bytes(bytes)))?
        };
        self.manifest.files.insert(name, entry);
        Ok(())
    }

    /// Hard-links an immutable file from the previous backup, or copies it if that does not have it.
    fn link_or_copy(&mut self, from: &Path, name: String) -> Result<(), BackupError> {
        let size = file_bytes(from)?;
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

    /// Copies a folder. Skips files that are deleted meanwhile, unfinished files (`.new`) and secrets.
    fn copy_folder(&mut self, from: &Path, name: &str) -> Result<(), BackupError> {
        for (path, relative_path) in list_files(from)? {
            let is_left_out = path.extension().is_some_and(|extension| extension == "new") || is_secret(&path);
            if !is_left_out {
                self.copy_if_exists(&path, format!("{name}/{relative_path}"))?;
            }
        }
        Ok(())
    }

    /// Copies a file, unless it was deleted since it was listed.
    fn copy_if_exists(&mut self, path: &Path, name: String) -> Result<(), BackupError> {
        match self.copy(path, name) {
            Err(_) if !path.exists() => Ok(()),
            other => other,
        }
    }

    /// Copies the newest checkpoint with its journals, and returns its offset. Retries when a newer one replaces it.
    fn copy_checkpoint(&mut self, from: &Path) -> Result<Option<u64>, BackupError> {
        loop {
            let checkpoints = || -> Result<Vec<(u64, PathBuf)>, BackupError> {
                let all = list_files(from)?.into_iter().filter_map(|(path, relative_path)| {
                    Some((relative_path.strip_suffix(".state")?.parse::<u64>().ok()?, path))
                });
                let mut all: Vec<_> = all.collect();
                all.sort();
                Ok(all)
            };
            let Some((offset, state)) = checkpoints()?.pop() else { return Ok(None) };
            let folder = self.to.join("checkpoint");
            if !self.dry_run && folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(BackupError::io(|| format!("remove {}", folder.display())))?;
            }
            self.manifest.files.retain(|name, _| !name.starts_with("checkpoint/"));
            let copied = self.copy(&state, format!("checkpoint/{offset:020}.state"));
            let mut journals = list_files(from)?.into_iter().filter(|(_, relative_path)| relative_path.contains('/'));
            // Journals exist as long as their checkpoint does; those of an earlier one may be deleted meanwhile.
            let journals = journals.try_for_each(|(path, relative_path)| {
                self.copy_if_exists(&path, format!("checkpoint/{relative_path}"))
            });
            match copied.and(journals) {
                Ok(()) if state.exists() => return Ok(Some(offset)),
                Err(error) if checkpoints()?.last().is_some_and(|(newest, _)| *newest == offset) => return Err(error),
                _ => {}
            }
        }
    }

    /// Copies a consistent snapshot of the state database.
    async fn copy_database(&mut self, data: &Path) -> Result<(), BackupError> {
        let name = "state/wardroom.db";
        let database = database_path(data);
        if !database.exists() && has_state(data) {
            let detail = "the state is in PostgreSQL, and a backup without it cannot be restored; copy the database with \
                          pg_dump, and the data folder of a stopped server with your own means";
            return Err(wardroom_store::Error::Unsupported(detail.to_owned()).into());
        }
        if self.dry_run {
            return self.copy(&database, name.to_owned());
        }
        let snapshot = self.to.join("database");
        let store = open_state(data, RequiredState::Tables).await?;
        store.copy_to(&snapshot).await?;
        store.close().await;
        self.copy(&snapshot, name.to_owned())?;
        std::fs::remove_file(&snapshot).map_err(BackupError::io(|| format!("remove {}", snapshot.display())))
    }

    /// Copies the segments of the bus, and returns the first copied offset. Starts with the newest segment: the bus
    /// deletes the oldest first, so the copied segments have no gap.
    fn copy_bus(&mut self, from: &Path) -> Result<Option<u64>, BackupError> {
        let mut segments: Vec<_> =
            list_files(from)?.into_iter().filter(|(_, relative_path)| relative_path.ends_with(".seg")).collect();
        segments.sort();
        let mut first_offset = None;
        while let Some((path, relative_path)) = segments.pop() {
            let name = format!("bus/{relative_path}");
            // Only the newest segment is still written to.
            let copied = if first_offset.is_none() { self.copy(&path, name) } else { self.link_or_copy(&path, name) };
            match copied {
                Err(_) if !path.exists() => break,
                other => other?,
            }
            first_offset = relative_path.strip_suffix(".seg").and_then(|base| base.parse().ok());
        }
        for (path, relative_path) in
            list_files(&from.join("rest"))?.into_iter().filter(|(_, relative_path)| relative_path.ends_with(".rest"))
        {
            match self.link_or_copy(&path, format!("bus/rest/{relative_path}")) {
                Err(_) if !path.exists() => {}
                other => other?,
            }
        }
        Ok(first_offset)
    }
}

/// Returns whether a file is the key that signs the audit log: with it, another log can be signed.
fn is_secret(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == PRIVATE_KEY_FILE)
}

fn file_bytes(path: &Path) -> Result<u64, BackupError> {
    Ok(std::fs::metadata(path).map_err(BackupError::io(|| path.display().to_string()))?.len())
}
