//! `bench start`: how long a start takes after a kill, with a gigabyte of bus and a checkpoint of 100 000 series, the
//! page cache dropped. Intake must be open before what came since the checkpoint has been read again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use serde_json::{Value, json};

use super::bodies::Bodies;
use super::target::Target;
use super::{load, median, process};
use crate::tell;

/// Longest time from the start to the first acknowledged request (DESIGN §8).
const GOAL_S: f64 = 1.0;
/// What lies on the bus, at least.
const BUS_BYTES: u64 = 1 << 30;
/// A request of 2000 samples is about so long.
const REQUEST_BYTES: usize = 54_000;

/// Runs the benchmark.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut series, mut repeat, mut check, mut file) = (100_000, 3, false, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("series") => series = arguments.value()?.parse()?,
            Long("repeat") => repeat = arguments.value()?.parse()?,
            Long("check") => check = true,
            Long("json") => file = Some(std::path::PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    let steps = BUS_BYTES as usize / REQUEST_BYTES * super::PER_REQUEST / series + 1;
    tell(format!("{series} series, {steps} steps: preparing bodies"));
    // The paced part comes after the checkpoint, and has to be read again.
    let bodies = Bodies::build(series, steps, steps / 10 + 2, false);
    let (probe, since) = bodies.paced.split_last().context("no bodies")?;
    let mut target = Target::start("wardroom", false)?;
    ensure!(load(&target, &bodies, &bodies.saturated, None)?.1 == 0, "a request failed");
    target.settle()?;
    tell("waiting for a checkpoint");
    let before = checkpoints(&mut target)?;
    let deadline = Instant::now() + Duration::from_secs(180);
    while checkpoints(&mut target)? == before {
        ensure!(Instant::now() < deadline, "no checkpoint within three minutes");
        std::thread::sleep(Duration::from_millis(500));
    }
    ensure!(load(&target, &bodies, since, None)?.1 == 0, "a request failed");
    let dir = target.server()?.dir.join("data");
    let mut runs = Vec::new();
    for _ in 0..repeat {
        let run = start(&mut target, probe, &dir)?;
        tell(&run);
        runs.push(run);
    }
    target.end()?;
    let of = |name: &str| median(runs.iter().filter_map(|run| run[name].as_f64()));
    let medians = json!({ "serving_s": of("serving_s"), "acked_s": of("acked_s"), "caught_up_s": of("caught_up_s") });
    let report = json!({ "commit": process::commit(), "machine": process::machine(), "series": series, "medians": medians, "runs": runs });
    tell(serde_json::to_string_pretty(&report["medians"])?);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    let acked = of("acked_s").unwrap_or(f64::INFINITY);
    ensure!(!check || acked < GOAL_S, "the first acknowledgement came after {acked:.2} s, goal {GOAL_S}");
    Ok(())
}

/// One start after a kill.
fn start(target: &mut Target, probe: &[u8], dir: &Path) -> anyhow::Result<Value> {
    let server = target.server()?;
    server.kill();
    let cold = std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok();
    let started = Instant::now();
    server.restart()?;
    let serving = started.elapsed().as_secs_f64();
    let status = server.write(probe)?;
    let acked = started.elapsed().as_secs_f64();
    ensure!(status == 204, "the first request was answered {status}");
    let lag_then = target.lag()?;
    while target.lag()? > 0.0 {
        ensure!(started.elapsed() < Duration::from_secs(120), "detection does not catch up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let caught_up = started.elapsed().as_secs_f64();
    Ok(json!({
        "serving_s": serving,
        "acked_s": acked,
        "caught_up_s": caught_up,
        "lag_records": lag_then,
        "bus_bytes": bytes(&dir.join("bus"))?,
        "checkpoint_bytes": bytes(&dir.join("checkpoint"))?,
        "page_cache_dropped": cold,
    }))
}

fn checkpoints(target: &mut Target) -> anyhow::Result<f64> {
    let server = target.server()?;
    let (_, text) = server.get("/metrics", &server.responder)?;
    let line = text.lines().find_map(|line| line.strip_prefix("wardroom_checkpoints_total "));
    Ok(line.map_or(Ok(0.0), |line| line.trim().parse())?)
}

/// Size of all files below a folder.
fn bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}
