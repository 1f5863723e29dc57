//! Bar 4a: acknowledged data survives power loss.
//!
//! ```text
//! XFS on a file ── disk.img (ext4) ── data folder of the running server
//!        └ cp --reflink ─► cut.img ── mounted, and a second server started on it
//! ```
//!
//! An instant copy of the inner file system's image is what a disk would hold after power loss at that moment: what was
//! only in the page cache is missing, and ext4 replays its journal when the copy is mounted. A kill cannot show this,
//! since the page cache outlives the process. Needs root, to mount file systems.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use wardroom_testing::{Server, server};

use crate::bar::{BarOptions, BarResult};
use crate::oracle::lake_contents::{LakeContents, wait_for_lake};
use crate::oracle::sample_load::{SERIES, SampleLoad, SampleOracle, Timestamps};
use crate::progress::print_progress;

/// Maximum startup time on the copy.
const MAX_STARTUP_DURATION: Duration = Duration::from_secs(5);
/// Power losses per data folder; then a new folder is created.
const LOSSES_PER_FOLDER: u64 = 10;
/// Enough requests in flight at any moment, and few enough that a comparison stays short.
const WRITERS: u64 = 8;
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// One minute of load spans more than half a day, so that files are merged.
const TIMESTAMPS: Timestamps = Timestamps { start_ago_ms: 47 * 3_600_000, step_ms: 10_000 };
/// All older table versions are read after every this many losses, since that takes long.
const ALL_VERSIONS_INTERVAL_LOSSES: u64 = 5;

/// Runs the bar.
pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    ensure!(nix::unistd::geteuid().is_root(), "bar 4a mounts file systems and needs root");
    let mut result = BarResult::default();
    let mut random = StdRng::seed_from_u64(options.seed);
    while result.kills < options.kills {
        let test_disk = TestDisk::build(options.seed)?;
        // Frequent checkpoints and small segments, so that they are interrupted half-way.
        let environment = [
            ("WARDROOM_MUTANT", options.mutant_name()),
            ("WARDROOM_CHECKPOINT__INTERVAL_SECONDS", "1"),
            ("WARDROOM_BUS__SEGMENT_BYTES", "1048576"),
            // So are flushes, merges and vacuums.
            ("WARDROOM_LAKE__FLUSH_SECONDS", "1"),
            ("WARDROOM_LAKE__MAINTAIN_SECONDS", "1"),
        ];
        let mut server = Server::start(&test_disk.disk, "", &environment)?;
        let mut load = SampleLoad::start(&server, WRITERS, WRITE_INTERVAL, options.seed, TIMESTAMPS);
        let mut tokens = Vec::new();
        for _ in 0..LOSSES_PER_FOLDER.min(options.kills - result.kills) {
            // The state store acknowledges as well: a token that was printed must be valid.
            tokens.push(server::create_token(&server.dir.join("data"), &format!("p{}", tokens.len()), "viewer")?);
            std::thread::sleep(Duration::from_millis(random.random_range(50..900)));
            let acked = load.oracle.acked();
            test_disk.copy_disk()?;
            let all_versions = result.kills % ALL_VERSIONS_INTERVAL_LOSSES == ALL_VERSIONS_INTERVAL_LOSSES - 1;
            let found = check_copy(&test_disk, &server, &load.oracle, &acked, &tokens, all_versions);
            test_disk.remove_copy()?;
            result.add(found?);
            result.kills += 1;
            if result.kills % 10 == 0 {
                print_progress(format!(
                    "{} power losses, {} acknowledged, {} missing",
                    result.kills, result.acked, result.missing
                ));
            }
            if options.mutant.is_some() && !result.is_clean() {
                load.stop()?;
                print_progress("caught");
                return Ok(result);
            }
        }
        load.stop()?;
        server.kill();
    }
    Ok(result)
}

/// Starts a server on the copied disk, reads everything through its API, then reads the folder it leaves.
fn check_copy(
    test_disk: &TestDisk,
    running: &Server,
    oracle: &SampleOracle,
    acked: &BTreeSet<u64>,
    tokens: &[String],
    all_versions: bool,
) -> anyhow::Result<BarResult> {
    let mut result = BarResult::default();
    let started = Instant::now();
    let mut server = match running.start_on_copy(&test_disk.copy) {
        Ok(server) => server,
        Err(error) => {
            result.faults.push(format!("does not start: {error:#}"));
            return Ok(result);
        }
    };
    let start = started.elapsed();
    if start > MAX_STARTUP_DURATION {
        result.faults.push(format!("took {start:?} to start"));
    }
    for token in tokens {
        let (status, text) = server.get("/api/v1/anomalies", token)?;
        if status != 200 {
            result.faults.push(format!("a token that was printed is refused: {status} {text}"));
        }
    }
    // Through checkpoint, live series and bus, as users read.
    result.add(oracle.compare_samples(read_samples(&server)?.into_iter().map(Ok), acked, SERIES)?);
    let data = server.dir.join("data").display().to_string();
    let (code, text) = server::run(&["audit", "verify", "--data", &data, "--json"])?;
    if code != Some(0) {
        result.faults.push(format!("audit: {text}"));
    }
    // The lake: what it held, and what was read from the bus since.
    wait_for_lake(&server)?;
    server.kill();
    let (lake, on_disk) = std::thread::scope(|scope| {
        let lake = scope.spawn(|| LakeContents::read(&server.dir, all_versions));
        let on_disk = oracle.compare_data(&server.dir, acked, None);
        (lake.join(), on_disk)
    });
    match lake.map_err(|_| anyhow::anyhow!("reading the lake panicked"))? {
        Ok(lake) => {
            let found = oracle.compare_lake(&lake, acked);
            if !found.is_clean() {
                print_progress(format!("in the lake: {} missing, {} duplicate", found.missing, found.duplicate));
            }
            result.add(BarResult { issued: 0, acked: 0, ..found });
        }
        Err(error) => result.faults.push(format!("an independent reader cannot read the lake: {error:#}")),
    }
    let on_disk = on_disk?;
    if result.missing + on_disk.missing > 0 {
        print_progress(format!("{} missing over HTTP, {} in the data folder", result.missing, on_disk.missing));
    }
    result.missing = result.missing.max(on_disk.missing);
    result.corrupted += on_disk.corrupted;
    result.spurious += on_disk.spurious;
    Ok(result)
}

/// Reads all samples of the oracle's series over HTTP: series index, timestamp in ms, value.
fn read_samples(server: &Server) -> anyhow::Result<Vec<(u64, i64, f64)>> {
    let (mut all, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/api/v1/samples?match[]=oracle&start=0&cursor={cursor}");
        let (status, text) = server.get(&path, &server.responder_token)?;
        ensure!(status == 200, "{status} {text}");
        let page: Value = serde_json::from_str(&text)?;
        for series in page["series"].as_array().into_iter().flatten() {
            let index = series["labels"]["i"].as_str().context("no label i")?.parse()?;
            for sample in series["samples"].as_array().into_iter().flatten() {
                let bits = u64::from_str_radix(sample[2].as_str().context("no bits")?, 16)?;
                all.push((index, sample[0].as_i64().context("no timestamp")?, f64::from_bits(bits)));
            }
        }
        match &page["next"] {
            Value::String(next) => cursor.clone_from(next),
            _ => break,
        }
    }
    // Pages may overlap within a request.
    all.sort_by_key(|(index, ts_ms, _)| (*index, *ts_ms));
    all.dedup_by_key(|(index, ts_ms, value)| (*index, *ts_ms, value.to_bits()));
    Ok(all)
}

/// The disk of the running server, and the mount point of its copies.
struct TestDisk {
    outer: PathBuf,
    disk: PathBuf,
    copy: PathBuf,
    base: PathBuf,
}

impl TestDisk {
    fn build(seed: u64) -> anyhow::Result<Self> {
        let base = std::env::temp_dir().join(format!("wardroom-4a-{}-{seed}", std::process::id()));
        let test_disk = Self { outer: base.join("outer"), disk: base.join("disk"), copy: base.join("copy"), base };
        for dir in [&test_disk.outer, &test_disk.disk, &test_disk.copy] {
            std::fs::create_dir_all(dir)?;
        }
        let host = test_disk.base.join("host.img");
        std::fs::File::create(&host)?.set_len(4 << 30)?;
        run_command("mkfs.xfs", program("MKFS_XFS_BIN").args(["-q", "-m", "reflink=1"]).arg(&host))?;
        mount(&host, &test_disk.outer)?;
        let image = test_disk.outer.join("disk.img");
        std::fs::File::create(&image)?.set_len(1 << 30)?;
        run_command("mkfs.ext4", tool("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        mount(&image, &test_disk.disk)?;
        Ok(test_disk)
    }

    /// Copies the disk as it is at this moment, and mounts the copy.
    fn copy_disk(&self) -> anyhow::Result<()> {
        let (disk, copy) = (self.outer.join("disk.img"), self.outer.join("cut.img"));
        run_command("cp", tool("cp").arg("--reflink=always").arg(disk).arg(&copy))?;
        mount(&copy, &self.copy)
    }

    /// Unmounts and removes the copy.
    fn remove_copy(&self) -> anyhow::Result<()> {
        unmount(&self.copy)?;
        Ok(std::fs::remove_file(self.outer.join("cut.img"))?)
    }
}

impl Drop for TestDisk {
    fn drop(&mut self) {
        for dir in [&self.copy, &self.disk, &self.outer] {
            if let Err(error) = unmount(dir) {
                print_progress(format!("{error:#}"));
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.base) {
            print_progress(format!("{}: {error}", self.base.display()));
        }
    }
}

fn mount(image: &Path, mount_point: &Path) -> anyhow::Result<()> {
    run_command("mount", tool("mount").args(["-o", "loop"]).arg(image).arg(mount_point))
}

/// Unmounts; does nothing if it is not mounted.
fn unmount(mount_point: &Path) -> anyhow::Result<()> {
    let mounted = std::fs::read_to_string("/proc/mounts")?.contains(&format!(" {} ", mount_point.display()));
    if !mounted {
        return Ok(());
    }
    for _ in 0..50 {
        if run_command("umount", tool("umount").arg(mount_point)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    run_command("umount", tool("umount").arg("-l").arg(mount_point))
}

/// Returns a command for a tool of the operating system.
#[expect(clippy::disallowed_methods, reason = "the bar mounts and copies with the system's tools")]
fn tool(name: &str) -> Command {
    Command::new(name)
}

#[expect(clippy::disallowed_methods, reason = "fault injectors are separate programs")]
fn program(variable: &str) -> Command {
    let mut command = Command::new(server::program(variable));
    command.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    command
}

fn run_command(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
