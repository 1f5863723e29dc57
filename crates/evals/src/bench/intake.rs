//! `bench intake`: the same prebuilt remote_write bodies for Wardroom, VictoriaMetrics and Prometheus, in one run.
//!
//! ```text
//! as fast as acknowledged ─► 50 000 samples/s ─► own pace: each series every 15 s
//!  CPU of the process tree    CPU, ack p50 / p99   CPU
//! ```
//!
//! CPU is utime + stime of all processes of the target, from before the load until the target is idle again. Wardroom
//! is idle when detection has processed the whole bus as well.
//!
//! Wardroom runs with its defaults. With the lake that means that samples younger than the last flush (10 min, or
//! enough samples) are not in the tables yet when the measurement ends; the report says how many are. `--flush-seconds`
//! shortens the interval and then waits for all samples. At its own pace the load takes real time: `--own-pace-minutes`
//! should exceed 10 for a flush to be included.
//!
//! Excluded, because they would make the result look better than it is: a tmpfs (the data lies next to the build),
//! `durability: os`, a detector in its cold start (level shifts are injected after it and must be found), figures of
//! other products from another day, processes left out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use serde_json::{Value, json};

use super::intake_report::{medians, missed_goals, ratios};
use super::load::send;
use super::read_back::{ReadBack, count_found_shifts, read_back_samples};
use super::remote_write_bodies::{Bodies, PhaseSteps, STEP_MS};
use super::run_environment::{commit, machine};
use super::target::{LakeOptions, TARGET_NAMES, Target};
use crate::progress::print_progress;

/// Rate of the paced phase.
pub(super) const PACED_SAMPLES_PER_S: f64 = 50_000.0;
const PACED_DURATION: Duration = Duration::from_secs(60);

struct Options {
    series: Vec<usize>,
    repeat: usize,
    /// Samples of the saturated phase.
    samples: usize,
    targets: Vec<String>,
    /// Real time of the phase at the load's own pace; 0 leaves it out.
    own_pace_minutes: u64,
    /// Replace a tenth of the series every ten minutes of the samples' time.
    churn: bool,
    lake: LakeOptions,
    /// Fail if a goal is missed.
    check: bool,
    json: Option<PathBuf>,
    /// File for the flame graph of the last run.
    flame: Option<PathBuf>,
}

/// Runs the benchmark.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut options = Options {
        series: vec![10_000, 100_000],
        repeat: 3,
        samples: 16_000_000,
        targets: TARGET_NAMES.iter().map(|name| (*name).to_owned()).collect(),
        own_pace_minutes: 2,
        churn: false,
        lake: LakeOptions::OFF,
        check: false,
        json: None,
        flame: None,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("series") => {
                let list = arguments.value()?.string()?;
                options.series = list.split(',').map(str::parse).collect::<Result<_, _>>().context("--series")?;
            }
            Long("repeat") => options.repeat = arguments.value()?.parse()?,
            Long("samples") => options.samples = arguments.value()?.parse()?,
            Long("targets") => {
                options.targets = arguments.value()?.string()?.split(',').map(str::to_owned).collect();
            }
            Long("own-pace-minutes") => options.own_pace_minutes = arguments.value()?.parse()?,
            Long("churn") => options.churn = true,
            Long("check") => options.check = true,
            Long("lake") => match arguments.value()?.string()?.as_str() {
                "off" => options.lake.enabled = false,
                "on" => options.lake.enabled = true,
                other => anyhow::bail!("--lake {other}: on or off"),
            },
            Long("flush-seconds") => options.lake.flush_seconds = Some(arguments.value()?.parse()?),
            Long("flame") => options.flame = Some(arguments.value()?.into()),
            Long("json") => options.json = Some(arguments.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut runs = Vec::new();
    for series in &options.series {
        print_progress(format!("{series} series: preparing bodies"));
        let steps = PhaseSteps {
            saturated: options.samples / series,
            paced: (PACED_SAMPLES_PER_S * PACED_DURATION.as_secs_f64()) as usize / series + 1,
            own_pace: (options.own_pace_minutes * 60_000) as usize / STEP_MS as usize,
        };
        let bodies = Bodies::build(*series, steps, options.churn);
        for repeat in 0..options.repeat {
            for name in &options.targets {
                let figures = measure(name, &bodies, &options);
                let mut figures = figures.with_context(|| format!("{name}, {series} series, run {repeat}"))?;
                figures["target"] = json!(name);
                figures["series"] = json!(series);
                figures["repeat"] = json!(repeat);
                print_progress(&figures);
                runs.push(figures);
            }
        }
    }
    let settings = json!({ "samples": options.samples, "own_pace_minutes": options.own_pace_minutes,
        "flush_seconds": options.lake.flush_seconds });
    let report = json!({ "commit": commit(), "machine": machine(), "churn": options.churn,
        "lake": options.lake.enabled, "settings": settings, "medians": medians(&runs), "ratios": ratios(&runs),
        "runs": runs });
    let summary = json!({ "medians": report["medians"], "ratios": report["ratios"] });
    print_progress(serde_json::to_string_pretty(&summary)?);
    if let Some(file) = options.json {
        std::fs::write(file, report.to_string())?;
    }
    let missed = missed_goals(&report);
    missed.iter().for_each(|goal| print_progress(format!("missed: {goal}")));
    ensure!(!options.check || missed.is_empty(), "{} goals missed", missed.len());
    Ok(())
}

/// Measures one target, started on an empty data folder.
fn measure(name: &str, bodies: &Bodies, options: &Options) -> anyhow::Result<Value> {
    let mut target = Target::start(name, options.lake)?;
    let at_start = target.usage()?;

    let profile = target.start_profile()?;
    let started = Instant::now();
    let saturated = send(&target, bodies, &bodies.saturated, None)?;
    target.wait_until_idle()?;
    let mut sent = bodies.samples(&bodies.saturated) as u64;
    let saturated_lake = target.lake_files(sent)?;
    let seconds = started.elapsed().as_secs_f64();
    let after_saturated = target.usage()?;
    let stages = profile.map(|profile| profile.finish(options.flame.as_deref())).transpose()?;
    let millions = sent as f64 / 1e6;
    let cpu_s = after_saturated.cpu_s - at_start.cpu_s;

    let before_paced = target.usage()?;
    let paced = send(&target, bodies, &bodies.paced, Some(PACED_SAMPLES_PER_S))?;
    target.wait_until_idle()?;
    sent += bodies.samples(&bodies.paced) as u64;
    let lake = target.lake_files(sent)?;
    let paced_cpu_s = target.usage()?.cpu_s - before_paced.cpu_s;
    let paced_millions = bodies.samples(&bodies.paced) as f64 / 1e6;

    let own_pace = measure_own_pace(&mut target, bodies)?;
    sent += bodies.samples(&bodies.own_pace) as u64;

    let read_back = target.wardroom().map(|server| read_back_samples(server, bodies)).transpose()?;
    let shifts_found = target.wardroom().map(|server| count_found_shifts(server, bodies)).transpose()?;
    let at_end = target.usage()?;
    // Files of the saturated phase: no other phase spans the six hours after which a file is finished.
    let bytes_per_sample = match &saturated_lake {
        Some(files) => files["finished_bytes_per_sample"].as_f64().or_else(|| files["bytes_per_sample"].as_f64()),
        None => target.data_bytes()?.map(|bytes| bytes as f64 / sent as f64),
    };
    target.stop()?;
    Ok(json!({
        "cpu_s_per_m_saturated": cpu_s / millions,
        "cpu_s_per_m_50k": paced_cpu_s / paced_millions,
        "cpu_s_per_m_own_pace": own_pace.map(|own_pace| own_pace.cpu_s / own_pace.millions),
        "own_pace_cores": own_pace.map(|own_pace| own_pace.cpu_s / own_pace.seconds),
        "own_pace_http_errors": own_pace.map(|own_pace| own_pace.errors),
        "samples_per_s": millions * 1e6 / seconds,
        "samples_per_s_core": millions * 1e6 / cpu_s,
        "rss_mib_at_start": at_start.rss_kib / 1024.0,
        "rss_mib": at_end.rss_kib / 1024.0,
        "rss_kib_per_series": (at_end.rss_kib - at_start.rss_kib) / bodies.series as f64,
        "ack_ms": { "p50": paced.latency_ms(0.5), "p99": paced.latency_ms(0.99) },
        "http_errors": saturated.errors + paced.errors + own_pace.map_or(0, |own_pace| own_pace.errors),
        "sent": sent,
        "read_back": read_back.map(|ReadBack { read, .. }| read),
        "read_back_of": read_back.map(|ReadBack { sent, .. }| sent),
        "read_back_ms_each": read_back.map(|ReadBack { query_ms, .. }| query_ms),
        "shifts_found": shifts_found,
        "bytes_per_sample": bytes_per_sample,
        "tables_saturated": saturated_lake,
        "tables": lake,
        "stages": cpu_by_stage(stages, cpu_s / millions),
    }))
}

/// Figures of the phase at the load's own pace.
#[derive(Clone, Copy, Debug)]
struct OwnPace {
    cpu_s: f64,
    seconds: f64,
    millions: f64,
    errors: u64,
}

/// Sends each series every 15 s of real time, so that the samples' time advances as in service.
fn measure_own_pace(target: &mut Target, bodies: &Bodies) -> anyhow::Result<Option<OwnPace>> {
    if bodies.own_pace.is_empty() {
        return Ok(None);
    }
    let samples_per_s = bodies.series as f64 * 1000.0 / STEP_MS as f64;
    let (before, started) = (target.usage()?.cpu_s, Instant::now());
    let outcome = send(target, bodies, &bodies.own_pace, Some(samples_per_s))?;
    target.wait_until_idle()?;
    Ok(Some(OwnPace {
        cpu_s: target.usage()?.cpu_s - before,
        seconds: started.elapsed().as_secs_f64(),
        millions: bodies.samples(&bodies.own_pace) as f64 / 1e6,
        errors: outcome.errors,
    }))
}

/// Returns CPU-seconds per million samples of each stage, from the profiler's shares.
fn cpu_by_stage(shares: Option<Value>, cpu_s_per_m: f64) -> Value {
    let shares = shares.unwrap_or_else(|| json!({}));
    let shares = shares.as_object().into_iter().flatten();
    shares.map(|(stage, share)| (stage.clone(), json!(share.as_f64().unwrap_or_default() * cpu_s_per_m))).collect()
}
