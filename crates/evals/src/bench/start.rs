//! `bench start`: time of a start after a kill, with a gigabyte on the bus, a checkpoint of 100 000 series and an empty
//! page cache. Intake must be open before the records since the checkpoint have been replayed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use serde_json::{Value, json};

use super::lake_files::folder_bytes;
use super::load::send;
use super::remote_write_bodies::{Bodies, PhaseSteps, SERIES_PER_REQUEST};
use super::run_environment::{commit, machine};
use super::statistics::median;
use super::target::{LakeOptions, Target};
use crate::progress::print_progress;
use crate::server_metrics::read_metric;

/// Maximum time from the start to the first acknowledged request.
const MAX_ACKED_S: f64 = 1.0;
/// Minimum size of the bus.
const MIN_BUS_BYTES: u64 = 1 << 30;
/// Approximate size of a request of 2000 samples.
const REQUEST_BYTES: usize = 54_000;
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(180);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);

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
    let steps = MIN_BUS_BYTES as usize / REQUEST_BYTES * SERIES_PER_REQUEST / series + 1;
    print_progress(format!("{series} series, {steps} steps: preparing bodies"));
    // The saturated phase is sent before the checkpoint, the paced one after it.
    let steps = PhaseSteps { saturated: steps, paced: steps / 10 + 2, own_pace: 0 };
    let bodies = Bodies::build(series, steps, false);
    let (probe, since_checkpoint) = bodies.paced.split_last().context("no bodies")?;
    let mut target = Target::start("wardroom", LakeOptions::OFF)?;
    ensure!(send(&target, &bodies, &bodies.saturated, None)?.errors == 0, "a request failed");
    target.wait_until_idle()?;
    print_progress("waiting for a checkpoint");
    let before = checkpoints(&mut target)?;
    let waiting_since = Instant::now();
    while checkpoints(&mut target)? == before {
        ensure!(waiting_since.elapsed() < CHECKPOINT_TIMEOUT, "no checkpoint within {CHECKPOINT_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    ensure!(send(&target, &bodies, since_checkpoint, None)?.errors == 0, "a request failed");
    let dir = target.server()?.dir.join("data");
    let mut runs = Vec::new();
    for _ in 0..repeat {
        let run = measure_start(&mut target, probe, &dir)?;
        print_progress(&run);
        runs.push(run);
    }
    target.stop()?;
    let median_of = |name: &str| median(runs.iter().filter_map(|run| run[name].as_f64()));
    let medians = json!({ "serving_s": median_of("serving_s"), "acked_s": median_of("acked_s"), "caught_up_s": median_of("caught_up_s") });
    let report =
        json!({ "commit": commit(), "machine": machine(), "series": series, "medians": medians, "runs": runs });
    print_progress(serde_json::to_string_pretty(&report["medians"])?);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    let acked = median_of("acked_s").unwrap_or(f64::INFINITY);
    ensure!(!check || acked < MAX_ACKED_S, "the first acknowledgement came after {acked:.2} s, goal {MAX_ACKED_S}");
    Ok(())
}

/// Kills the server, empties the page cache and measures the start.
fn measure_start(target: &mut Target, probe: &[u8], dir: &Path) -> anyhow::Result<Value> {
    let server = target.server()?;
    server.kill();
    let page_cache_dropped = std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok();
    let started = Instant::now();
    server.restart()?;
    let serving_s = started.elapsed().as_secs_f64();
    let status = server.write(probe)?;
    let acked_s = started.elapsed().as_secs_f64();
    ensure!(status == 204, "the first request got status {status}");
    let lag_records = target.lag_records()?;
    while target.lag_records()? > 0.0 {
        ensure!(started.elapsed() < CATCH_UP_TIMEOUT, "detection does not catch up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let caught_up_s = started.elapsed().as_secs_f64();
    Ok(json!({
        "serving_s": serving_s,
        "acked_s": acked_s,
        "caught_up_s": caught_up_s,
        "lag_records": lag_records,
        "bus_bytes": folder_bytes(&dir.join("bus"))?,
        "checkpoint_bytes": folder_bytes(&dir.join("checkpoint"))?,
        "page_cache_dropped": page_cache_dropped,
    }))
}

/// Returns the number of checkpoints since the start.
fn checkpoints(target: &mut Target) -> anyhow::Result<f64> {
    Ok(read_metric(target.server()?, "wardroom_checkpoints_total")?.unwrap_or_default())
}
