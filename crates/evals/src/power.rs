//! Bar 4a: the power goes, again and again, and what was acknowledged is there.
//!
//! ```text
//! XFS on a file ── disk.img (ext4) ── data of the running server
//!        └ cp --reflink ─► cut.img ── mounted, and a second server started on it
//! ```
//!
//! An instant copy of the inner file system's image is what a disk would hold had the power gone at that moment:
//! whatever only the page cache knew is missing, and ext4 replays its journal when the copy is mounted. A kill
//! cannot show this, since the page cache outlives the process. Needs root: it mounts file systems of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use wardroom_testing::{Server, server};

use crate::ack::{Load, Oracle, Spread};
use crate::silver::{self, Silver};
use crate::{Options, Tally, tell};

/// A cut must come up this soon.
const UP: Duration = Duration::from_secs(5);
/// Cuts of one data folder; then a young one takes its place.
const CUTS: u64 = 10;
/// Many are on their way at any moment, and a comparison stays short.
const WRITERS: u64 = 8;
const PACE: Duration = Duration::from_millis(200);
/// A minute of it spans more than half a day, so that files are merged.
const SPREAD: Spread = Spread { back_ms: 47 * 3_600_000, step_ms: 10_000 };

/// Runs the bar.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    ensure!(nix::unistd::geteuid().is_root(), "bar 4a mounts file systems of its own, so it needs root");
    let mut tally = Tally::default();
    let mut random = StdRng::seed_from_u64(options.seed);
    while tally.kills < options.kills {
        let rig = Rig::build(options.seed)?;
        let mutant = options.mutant.as_deref().unwrap_or_default();
        // Checkpoints every second and small segments, so that a cut finds them half done.
        let environment = [
            ("WARDROOM_MUTANT", mutant),
            ("WARDROOM_CHECKPOINT__INTERVAL_SECONDS", "1"),
            ("WARDROOM_BUS__SEGMENT_BYTES", "1048576"),
            // Batches, merges and sweeps are on their way at any moment.
            ("WARDROOM_LAKE__FLUSH_SECONDS", "1"),
            ("WARDROOM_LAKE__MAINTAIN_SECONDS", "1"),
        ];
        let mut server = Server::start(&rig.disk, "", &environment)?;
        let mut load = Load::start(&server, WRITERS, PACE, options.seed, SPREAD);
        let mut tokens = Vec::new();
        for _ in 0..CUTS.min(options.kills - tally.kills) {
            // The state store has its own acknowledgements: a token that was shown is in force.
            tokens.push(server::create_token(&server.dir.join("data"), &format!("p{}", tokens.len()), "viewer")?);
            std::thread::sleep(Duration::from_millis(random.random_range(50..900)));
            let acked = load.oracle.acked();
            rig.cut()?;
            let found = recover(&rig, &server, &load.oracle, &acked, &tokens, tally.kills % 5 == 4);
            rig.clear()?;
            tally.add(found?);
            tally.kills += 1;
            if tally.kills % 10 == 0 {
                tell(format!("{} cuts, {} acknowledged, {} missing", tally.kills, tally.acked, tally.missing));
            }
            if options.mutant.is_some() && !tally.clean() {
                load.stop()?;
                tell("caught");
                return Ok(tally);
            }
        }
        load.stop()?;
        server.kill();
    }
    Ok(tally)
}

/// Starts a server on what the disk held, asks it for everything, and reads the folder it leaves.
fn recover(
    rig: &Rig,
    running: &Server,
    oracle: &Oracle,
    acked: &std::collections::BTreeSet<u64>,
    tokens: &[String],
    versions: bool,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let started = Instant::now();
    let mut server = match running.on_copy(&rig.copy) {
        Ok(server) => server,
        Err(error) => {
            tally.faults.push(format!("does not start: {error:#}"));
            return Ok(tally);
        }
    };
    let up = started.elapsed();
    if up > UP {
        tally.faults.push(format!("took {up:?} to start"));
    }
    for token in tokens {
        let (status, text) = server.get("/api/v1/anomalies", token)?;
        if status != 200 {
            tally.faults.push(format!("a token that was shown is not known: {status} {text}"));
        }
    }
    // Through the checkpoint, the live series and the bus, as a user reads.
    tally.add(oracle.judge(read(&server)?.into_iter().map(Ok), acked, crate::ack::SERIES)?);
    let data = server.dir.join("data").display().to_string();
    let (code, text) = server::run(&["audit", "verify", "--data", &data, "--json"])?;
    if code != Some(0) {
        tally.faults.push(format!("audit: {text}"));
    }
    // What the tables held, and what the bus brought them since.
    silver::settle(&server)?;
    server.kill();
    // Every older version takes its time, so not at every cut.
    match Silver::read(&server.dir, versions) {
        Ok(silver) => {
            let found = oracle.judge_silver(&silver, acked);
            if !found.clean() {
                tell(format!("in the tables {} missing, {} twice", found.missing, found.duplicate));
            }
            tally.add(Tally { issued: 0, acked: 0, ..found });
        }
        Err(error) => tally.faults.push(format!("the tables cannot be read from outside: {error:#}")),
    }
    let on_disk = oracle.compare(&server.dir, acked, None)?;
    if tally.missing + on_disk.missing > 0 {
        tell(format!("{} missing by HTTP, {} in the log", tally.missing, on_disk.missing));
    }
    tally.missing = tally.missing.max(on_disk.missing);
    tally.corrupted += on_disk.corrupted;
    tally.spurious += on_disk.spurious;
    Ok(tally)
}

/// Every sample of the oracle's series, by HTTP: series, time in ms, value.
fn read(server: &Server) -> anyhow::Result<Vec<(u64, i64, f64)>> {
    let (mut all, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/api/v1/samples?match[]=oracle&start=0&cursor={cursor}");
        let (status, text) = server.get(&path, &server.responder)?;
        ensure!(status == 200, "{status} {text}");
        let page: Value = serde_json::from_str(&text)?;
        for series in page["series"].as_array().into_iter().flatten() {
            let index = series["labels"]["i"].as_str().context("no label i")?.parse()?;
            for sample in series["samples"].as_array().into_iter().flatten() {
                let bits = u64::from_str_radix(sample[2].as_str().context("no bits")?, 16)?;
                all.push((index, sample[0].as_i64().context("no time")?, f64::from_bits(bits)));
            }
        }
        match &page["next"] {
            Value::String(next) => cursor.clone_from(next),
            _ => break,
        }
    }
    // A page may begin in the middle of a request.
    all.sort_by_key(|(index, at, _)| (*index, *at));
    all.dedup_by_key(|(index, at, value)| (*index, *at, value.to_bits()));
    Ok(all)
}

/// The disk under the running server, and the place where its copies are mounted.
struct Rig {
    outer: PathBuf,
    disk: PathBuf,
    copy: PathBuf,
    base: PathBuf,
}

impl Rig {
    fn build(seed: u64) -> anyhow::Result<Self> {
        let base = std::env::temp_dir().join(format!("wardroom-4a-{}-{seed}", std::process::id()));
        let rig = Self { outer: base.join("outer"), disk: base.join("disk"), copy: base.join("copy"), base };
        for dir in [&rig.outer, &rig.disk, &rig.copy] {
            std::fs::create_dir_all(dir)?;
        }
        let host = rig.base.join("host.img");
        std::fs::File::create(&host)?.set_len(4 << 30)?;
        call("mkfs.xfs", program("MKFS_XFS_BIN").args(["-q", "-m", "reflink=1"]).arg(&host))?;
        mount(&host, &rig.outer)?;
        let image = rig.outer.join("disk.img");
        std::fs::File::create(&image)?.set_len(1 << 30)?;
        call("mkfs.ext4", tool("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        mount(&image, &rig.disk)?;
        Ok(rig)
    }

    /// The power goes.
    fn cut(&self) -> anyhow::Result<()> {
        let (disk, copy) = (self.outer.join("disk.img"), self.outer.join("cut.img"));
        call("cp", tool("cp").arg("--reflink=always").arg(disk).arg(&copy))?;
        mount(&copy, &self.copy)
    }

    fn clear(&self) -> anyhow::Result<()> {
        unmount(&self.copy)?;
        Ok(std::fs::remove_file(self.outer.join("cut.img"))?)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for dir in [&self.copy, &self.disk, &self.outer] {
            // Whatever still has files open there goes away with this process.
            if let Err(error) = unmount(dir) {
                tell(format!("{error:#}"));
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.base) {
            tell(format!("{}: {error}", self.base.display()));
        }
    }
}

fn mount(image: &Path, at: &Path) -> anyhow::Result<()> {
    call("mount", tool("mount").args(["-o", "loop"]).arg(image).arg(at))
}

/// A mount that is not there is no error.
fn unmount(at: &Path) -> anyhow::Result<()> {
    let mounted = std::fs::read_to_string("/proc/mounts")?.contains(&format!(" {} ", at.display()));
    if !mounted {
        return Ok(());
    }
    for _ in 0..50 {
        if call("umount", tool("umount").arg(at)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    call("umount", tool("umount").arg("-l").arg(at))
}

/// A program of the machine's own.
#[expect(clippy::disallowed_methods, reason = "the nemesis mounts and copies with the system's tools")]
fn tool(name: &str) -> Command {
    Command::new(name)
}

#[expect(clippy::disallowed_methods, reason = "the nemesis runs a program it was given")]
fn program(variable: &str) -> Command {
    let mut command = Command::new(server::program(variable));
    command.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    command
}

fn call(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
