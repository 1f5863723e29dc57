//! `wardroom backup`: a copy of a data folder, beside a running server or without one.
//!
//! ```text
//! groups ─► checkpoint ─► state ─► tables ─► bus ─► dead letters ─► ledger ─► manifest
//! ```
//!
//! Problem: the parts of a data folder refer to each other, and a server goes on writing. Model: whoever refers is copied before what
//! he refers to. A group's offset and a checkpoint say what the tables have and where on the bus to go on, so they come first,
//! then the tables, then the bus: after a restore the tables may know more than a checkpoint does, as after a crash, and what
//! the bus holds beyond both is read again. The bus forgets while it is copied; when it has forgotten what the copy
//! needs, all of it is begun again. Who approved what comes last: a plan that was used up once is never open again.
//!
//! Files that never change are linked from the backup before, so a daily one costs a day's data. A backup is whole when its
//! manifest is there; it names every file with its SHA-256.
//!
//! Done by a process of its own: the server is confined, and sees neither the executor's ledger nor any other folder.

mod manifest;
mod restore;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use wardroom_roles::config::BackupConfig;
use wardroom_roles::{Config, Lake, ReadOnlyBus, Store, backups, clock, database};

use self::manifest::{Content, Manifest};
use crate::commands::{Done, block, say};
use crate::configuration;
use crate::options::BackupArgs;
use crate::serving::hear_signals;

pub(crate) use restore::restore;

/// How often a copy is begun again because the bus forgot what it needs.
const TRIES: usize = 3;
/// Held while one is made, below the folder of backups.
const LOCK: &str = ".lock";

/// Backups that the supervisor has made when they are due.
pub(crate) struct Daily {
    to: PathBuf,
    every: Duration,
    arguments: Vec<String>,
}

impl Daily {
    /// Those that the configuration asks for, if it does.
    pub(crate) fn new(config: BackupConfig, data: &Path, file: Option<&Path>) -> Option<Self> {
        let to = config.to?;
        let every = Duration::from_secs(u64::from(config.every_hours) * 3600);
        let text = |path: &Path| path.display().to_string();
        let mut arguments = vec!["backup".into(), "--supervised".into(), "--json".into()];
        arguments.extend(["--data".into(), text(data), "--to".into(), text(&to)]);
        arguments.extend(["--keep".into(), config.keep.to_string()]);
        arguments.extend(file.into_iter().flat_map(|file| ["--config".into(), text(file)]));
        Some(Self { to, every, arguments })
    }

    /// Whether the newest one is too old, or there is none.
    pub(crate) fn due(&self) -> bool {
        let newest = manifest::list(&self.to).ok().and_then(|mut all| Manifest::read(&all.pop()?).ok());
        newest.is_none_or(|newest| newest.taken_at <= clock::now().minus(self.every))
    }

    /// The arguments of this program that make one.
    pub(crate) fn arguments(&self) -> Vec<String> {
        self.arguments.clone()
    }
}

/// Makes a backup, and lets those go that are too many.
pub(crate) fn backup(args: &BackupArgs) -> Done {
    if args.supervised {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        hear_signals()?;
    }
    let config = configuration::load(args.config.as_deref())?;
    let data = &args.data;
    if !database(data).exists() {
        bail!("{} is no data folder: there is no {}", data.display(), database(data).display());
    }
    let to = args.to.clone().or_else(|| config.backup.to.clone());
    let to = to.context("where to? Give --to, or backup.to in the configuration")?;
    let inside = |folder: &Path| std::path::absolute(folder).ok().zip(std::path::absolute(data).ok());
    if inside(&to).is_some_and(|(to, data)| to.starts_with(data)) {
        bail!("--to {} lies inside the data folder; put it on another disk", to.display());
    }
    let _turn = if args.dry_run { None } else { Some(turn(&to)?) };
    for _ in 1..TRIES {
        match block(take(data, &config, &to, args.dry_run))? {
            Some(taken) => return tell(&taken, &to, args),
            None => tracing::warn!("the bus forgot what the copy needs; it is begun again"),
        }
    }
    let taken = block(take(data, &config, &to, args.dry_run))?;
    let taken = taken.context("the bus forgets faster than it can be copied; raise bus.retention-hours")?;
    tell(&taken, &to, args)
}

/// One at a time; what an earlier one left that was cut short goes.
fn turn(to: &Path) -> anyhow::Result<Flock<File>> {
    manifest::private_parent(&to.join(LOCK)).with_context(|| format!("make {}", to.display()))?;
    let file = File::create(to.join(LOCK))?;
    let Ok(turn) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        bail!("another backup is being made in {}", to.display());
    };
    for entry in std::fs::read_dir(to)? {
        let entry = entry?;
        let partial = entry.file_name().to_string_lossy().starts_with('.') && entry.file_type()?.is_dir();
        if partial {
            std::fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(turn)
}

/// A backup that was made.
struct Taken {
    path: PathBuf,
    manifest: Manifest,
    linked: u64,
}

fn tell(taken: &Taken, to: &Path, args: &BackupArgs) -> Done {
    let Taken { path, manifest, linked } = taken;
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    let mut gone = Vec::new();
    if !args.dry_run {
        backups::note(&args.data, manifest.taken_at, bytes)?;
        let whole = manifest::list(to)?;
        let keep = args.keep.filter(|keep| *keep > 0).map_or(whole.len(), |keep| keep as usize);
        for old in &whole[..whole.len().saturating_sub(keep)] {
            std::fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
            gone.push(old.display().to_string());
        }
    }
    if args.json {
        say(
            json!({ "path": path, "taken_at": manifest.taken_at, "files": files, "bytes": bytes, "linked_bytes": linked,
            "lake_elsewhere": manifest.lake_elsewhere, "removed": gone, "dry_run": args.dry_run }),
        )?;
    } else {
        let (size, new) = (HumanBytes(bytes), HumanBytes(bytes - linked));
        let would = if args.dry_run { "would be " } else { "" };
        say(format!("{} {would}{files} files, {size}, of it {new} new", path.display()))?;
        if let Some(uri) = &manifest.lake_elsewhere {
            say(format!("without the tables: they lie on {uri}, which has to be kept by its own means"))?;
        }
        for old in gone {
            say(format!("{old} removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies everything once; nothing if the bus forgot meanwhile what the copy needs.
async fn take(data: &Path, config: &Config, to: &Path, dry_run: bool) -> anyhow::Result<Option<Taken>> {
    let now = clock::now();
    let name = now.to_string().replace(':', "-");
    let partial = to.join(format!(".{name}"));
    let mut copying = Copying::new(&partial, manifest::list(to)?.pop(), Manifest::new(now), dry_run)?;
    let groups = ReadOnlyBus::open(&data.join("bus"))?.needed()?;
    copying.folder(&data.join("bus/groups"), "bus/groups")?;
    let needed = copying.checkpoint(&data.join("checkpoint"))?.into_iter().chain(groups).min();
    copying.state(data).await?;
    match config.lake.folder(data)? {
        None if config.lake.enabled => copying.manifest.lake_elsewhere = Some(config.lake.uri.clone()),
        Some(_) if config.lake.enabled => {
            if let Some(lake) = Lake::look(&config.lake, data).await? {
                for piece in lake.pieces().await? {
                    copying.keep(&piece.path, format!("lake/{}", piece.name))?;
                }
            }
        }
        _ => {}
    }
    let oldest = copying.bus(&data.join("bus"))?;
    copying.folder(&data.join("dead-letters"), "dead-letters")?;
    copying.folder(&data.join("executor"), "executor")?;
    copying.bar.finish_and_clear();
    let Copying { manifest, linked, .. } = copying;
    if needed.zip(oldest).is_some_and(|(needed, oldest)| oldest > needed) {
        if !dry_run {
            std::fs::remove_dir_all(&partial)?;
        }
        return Ok(None);
    }
    let path = to.join(name);
    if !dry_run {
        // Everything is on the disk before the manifest says that it is there, and under its name after.
        nix::unistd::syncfs(File::open(&partial)?)?;
        manifest.write(&partial)?;
        std::fs::rename(&partial, &path)?;
        File::open(to)?.sync_all()?;
    }
    Ok(Some(Taken { path, manifest, linked }))
}

/// A backup in the making.
struct Copying {
    to: PathBuf,
    /// The backup before, and what is in it.
    before: Option<(PathBuf, BTreeMap<String, Content>)>,
    manifest: Manifest,
    linked: u64,
    bar: ProgressBar,
    dry_run: bool,
}

impl Copying {
    fn new(to: &Path, before: Option<PathBuf>, manifest: Manifest, dry_run: bool) -> anyhow::Result<Self> {
        if !dry_run {
            manifest::private_parent(&to.join("x")).with_context(|| format!("make {}", to.display()))?;
        }
        let before = before.and_then(|before| Some((before.clone(), Manifest::read(&before).ok()?.files)));
        Ok(Self { to: to.to_owned(), before, manifest, linked: 0, bar: bar()?, dry_run })
    }

    /// A file that may change: always copied, as long as it is now.
    fn copy(&mut self, from: &Path, name: String) -> anyhow::Result<()> {
        self.bar.set_message(name.clone());
        let content = if self.dry_run {
            Content { bytes: std::fs::metadata(from)?.len(), sha256: String::new() }
        } else {
            manifest::copy(from, &self.to.join(&name), |bytes| self.bar.inc(bytes))?
        };
        self.manifest.files.insert(name, content);
        Ok(())
    }

    /// A file that never changes: linked from the backup before if that has it.
    fn keep(&mut self, from: &Path, name: String) -> anyhow::Result<()> {
        let size = std::fs::metadata(from).with_context(|| from.display().to_string())?.len();
        let known = self.before.as_ref().and_then(|(folder, files)| {
            let content = files.get(&name).filter(|content| content.bytes == size)?;
            Some((folder.join(&name), content.clone()))
        });
        let Some((old, content)) = known else { return self.copy(from, name) };
        let to = self.to.join(&name);
        let linked = self.dry_run || manifest::private_parent(&to).and_then(|()| std::fs::hard_link(old, &to)).is_ok();
        if !linked {
            // A file system without links, or at the end of them.
            return self.copy(from, name);
        }
        self.linked += size;
        self.manifest.files.insert(name, content);
        Ok(())
    }

    /// All of a folder; what is gone before it is copied was not needed any more.
    fn folder(&mut self, from: &Path, name: &str) -> anyhow::Result<()> {
        for (path, below) in files(from)? {
            if path.exists() && path.extension().is_none_or(|extension| extension != "new") {
                self.copy(&path, format!("{name}/{below}"))?;
            }
        }
        Ok(())
    }

    /// The newest checkpoint with its journals, and the offset at which it begins; begun again when it is overtaken.
    fn checkpoint(&mut self, from: &Path) -> anyhow::Result<Option<u64>> {
        loop {
            let states = || -> std::io::Result<Vec<(u64, PathBuf)>> {
                let all = files(from)?
                    .into_iter()
                    .filter_map(|(path, below)| Some((below.strip_suffix(".state")?.parse::<u64>().ok()?, path)));
                let mut all: Vec<_> = all.collect();
                all.sort();
                Ok(all)
            };
            let Some((offset, state)) = states()?.pop() else { return Ok(None) };
            let folder = self.to.join("checkpoint");
            if !self.dry_run && folder.exists() {
                std::fs::remove_dir_all(&folder)?;
            }
            self.manifest.files.retain(|name, _| !name.starts_with("checkpoint/"));
            let copied = self.copy(&state, format!("checkpoint/{offset:020}.state"));
            let mut journals = files(from)?.into_iter().filter(|(_, below)| below.contains('/'));
            let journals = journals.try_for_each(|(path, below)| self.copy(&path, format!("checkpoint/{below}")));
            match copied.and(journals) {
                // Its files are there as long as it is.
                Ok(()) if state.exists() => return Ok(Some(offset)),
                Err(error) if states()?.last().is_some_and(|(newest, _)| *newest == offset) => return Err(error),
                _ => {}
            }
        }
    }

    async fn state(&mut self, data: &Path) -> anyhow::Result<()> {
        let name = "state/wardroom.db";
        let database = database(data);
        if self.dry_run {
            return self.copy(&database, name.to_owned());
        }
        let (fresh, to) = (self.to.join("database"), self.to.join(name));
        let store = Store::open(&database).await?;
        store.copy_to(&fresh).await?;
        store.close().await;
        self.copy(&fresh, name.to_owned())?;
        std::fs::remove_file(&fresh).with_context(|| to.display().to_string())
    }

    /// The segments of the bus, and the offset at which they begin. From the newest on: the bus forgets the oldest first, so
    /// what was copied has no gap.
    fn bus(&mut self, from: &Path) -> anyhow::Result<Option<u64>> {
        let mut segments: Vec<_> = files(from)?.into_iter().filter(|(_, below)| below.ends_with(".seg")).collect();
        segments.sort();
        let mut oldest = None;
        while let Some((path, below)) = segments.pop() {
            let name = format!("bus/{below}");
            let copied = if oldest.is_none() { self.copy(&path, name) } else { self.keep(&path, name) };
            match copied {
                Err(_) if !path.exists() => break,
                other => other?,
            }
            oldest = below.strip_suffix(".seg").and_then(|base| base.parse().ok());
        }
        for (path, below) in files(&from.join("rest"))?.into_iter().filter(|(_, below)| below.ends_with(".rest")) {
            match self.keep(&path, format!("bus/rest/{below}")) {
                Err(_) if !path.exists() => {}
                other => other?,
            }
        }
        Ok(oldest)
    }
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {bytes} {binary_bytes_per_sec} {wide_msg}")?;
    Ok(ProgressBar::no_length().with_style(style))
}

/// Every file below a folder, with its name below it.
fn files(folder: &Path) -> std::io::Result<Vec<(PathBuf, String)>> {
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

/// Whether the records of a bus come without a gap: the first offset, and the one after the last.
fn dense(bus: &ReadOnlyBus) -> anyhow::Result<(u64, u64)> {
    let (mut start, mut next) = (None, 0);
    loop {
        let records = bus.read(next, 256)?;
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
