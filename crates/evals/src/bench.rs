//! `bench intake`: the same prebuilt bodies at Wardroom, VictoriaMetrics and Prometheus, in one run.
//!
//! ```text
//! bodies (labels, values, injected shifts; from a seed) ─► as fast as acknowledged ─► 50 000 samples/s
//!                                                          CPU of the process tree     CPU, ack p50 / p99
//! ```
//!
//! CPU is utime + stime of every process of the target, from before the load until it is quiet again. For
//! Wardroom quiet means that detection has reached the end of the bus. Excluded, because they flatter: a tmpfs
//! (the data lies beside the build), `durability: os`, a detector still in its cold start (shifts are injected
//! after it and looked for afterwards), peers' figures from another day, threads or children left out.

mod bodies;
mod layout;
mod otlp;
mod process;
mod profile;
mod read;
mod start;
mod tables;
mod target;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, Value as Word, ValueExt};
use serde_json::{Value, json};

use crate::tell;
use bodies::{Bodies, PER_REQUEST};
use target::Target;

/// Connections with one request in flight each, as Prometheus' shards have.
const CONNECTIONS: usize = 5;
/// The paced part.
const PACE_PER_S: f64 = 50_000.0;
const PACED: Duration = Duration::from_secs(60);

struct Options {
    series: Vec<usize>,
    repeat: usize,
    samples: usize,
    targets: Vec<String>,
    /// A tenth of the series is new every ten minutes of the data's time.
    churn: bool,
    /// Whether ours keeps what it takes in tables; the clock stops when all of it stands there.
    lake: bool,
    /// Fail if a goal is missed.
    check: bool,
    json: Option<std::path::PathBuf>,
    /// Where the flame graph of the last run goes.
    flame: Option<std::path::PathBuf>,
}

/// Runs the benchmark.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut options = Options {
        series: vec![10_000, 100_000],
        repeat: 3,
        samples: 16_000_000,
        targets: target::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        churn: false,
        lake: false,
        check: false,
        json: None,
        flame: None,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Word(word) if word == "intake" => {}
            Word(word) if word == "otlp" => return otlp::run(arguments),
            Word(word) if word == "start" => return start::run(arguments),
            Word(word) if word == "layout" => return layout::run(arguments),
            Word(word) if word == "read" => return read::run(arguments),
            Long("series") => {
                let list = arguments.value()?.string()?;
                options.series = list.split(',').map(str::parse).collect::<Result<_, _>>().context("--series")?;
            }
            Long("repeat") => options.repeat = arguments.value()?.parse()?,
            Long("samples") => options.samples = arguments.value()?.parse()?,
            Long("targets") => {
                options.targets = arguments.value()?.string()?.split(',').map(str::to_owned).collect();
            }
            Long("churn") => options.churn = true,
            Long("check") => options.check = true,
            Long("lake") => match arguments.value()?.string()?.as_str() {
                "off" => options.lake = false,
                "on" => options.lake = true,
                other => anyhow::bail!("--lake {other}: on or off"),
            },
            Long("flame") => options.flame = Some(arguments.value()?.into()),
            Long("json") => options.json = Some(arguments.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut runs = Vec::new();
    for series in &options.series {
        tell(format!("{series} series: preparing bodies"));
        let paced = (PACE_PER_S * PACED.as_secs_f64()) as usize / series + 1;
        let bodies = Bodies::build(*series, options.samples / series, paced, options.churn);
        for repeat in 0..options.repeat {
            for name in &options.targets {
                let figures = one(name, &bodies, &options);
                let mut figures = figures.with_context(|| format!("{name}, {series} series, run {repeat}"))?;
                figures["target"] = json!(name);
                figures["series"] = json!(series);
                figures["repeat"] = json!(repeat);
                tell(&figures);
                runs.push(figures);
            }
        }
    }
    let report = json!({ "commit": process::commit(), "machine": process::machine(), "churn": options.churn, "lake": options.lake, "medians": medians(&runs), "ratios": ratios(&runs), "runs": runs });
    tell(serde_json::to_string_pretty(&json!({ "medians": report["medians"], "ratios": report["ratios"] }))?);
    if let Some(file) = options.json {
        std::fs::write(file, report.to_string())?;
    }
    let missed = missed(&report);
    missed.iter().for_each(|goal| tell(format!("missed: {goal}")));
    ensure!(!options.check || missed.is_empty(), "{} goals missed", missed.len());
    Ok(())
}

/// Goals over VictoriaMetrics in the same run.
const GOALS: [(&str, f64); 5] = [
    ("cpu_vs_victoria_metrics", 1.0 / 3.0),
    ("cpu_50k_vs_victoria_metrics", 0.4),
    ("rss_vs_victoria_metrics", 0.75),
    ("ack_p99_vs_victoria_metrics", 1.25),
    // With the lake, and samples enough for finished files: the default at ten thousand series.
    ("bytes_vs_victoria_metrics", 1.1),
];

/// What a stage costs, over all of VictoriaMetrics' CPU in the same run: medians of docs/performance.md. One that grows
/// by more than a quarter is a defect (DESIGN §8), even while the sum still meets its goal.
const STAGES: [(u64, &str, f64); 8] = [
    (10_000, "receive", 0.145),
    (10_000, "append", 0.069),
    (10_000, "head", 0.031),
    (10_000, "detect", 0.028),
    (100_000, "receive", 0.101),
    (100_000, "append", 0.043),
    (100_000, "head", 0.045),
    (100_000, "detect", 0.026),
];

/// Stages that grew.
fn grown(report: &Value) -> Vec<String> {
    let runs = |target: &str, series: u64| {
        let fits = move |run: &&Value| run["target"] == target && run["series"] == series;
        report["runs"].as_array().into_iter().flatten().filter(fits).collect::<Vec<_>>()
    };
    let grew = |(series, stage, known): &(u64, &str, f64)| {
        let peer = median(runs("victoria-metrics", *series).iter().filter_map(|run| figure(run, SATURATED)))?;
        let ours = median(runs("wardroom", *series).iter().filter_map(|run| run["stages"][*stage].as_f64()))?;
        let share = ours / peer;
        (share > known * 1.25)
            .then(|| format!("{stage} at {series} series is {share:.3} of the peer's CPU; it was {known}"))
    };
    STAGES.iter().filter_map(grew).collect()
}

/// What a run did not reach, in words.
fn missed(report: &Value) -> Vec<String> {
    let mut missed = grown(report);
    for (name, goal) in GOALS {
        for (ratio, value) in report["ratios"].as_object().into_iter().flatten() {
            // Memory a series is fixed cost at ten thousand, and files are not finished at a hundred thousand.
            let few = ratio.ends_with("_10000");
            let apart = (name.starts_with("rss") && few) || (name.starts_with("bytes") && !few);
            let counts = ratio.starts_with(&format!("{name}_at_")) && !apart;
            if let Some(value) = value.as_f64().filter(|value| counts && *value > goal) {
                missed.push(format!("{ratio} is {value:.2}, goal {goal:.2}"));
            }
        }
    }
    for run in report["runs"].as_array().into_iter().flatten().filter(|run| run["target"] == "wardroom") {
        let whole = run["read_back"] == run["read_back_of"] && run["http_errors"] == 0;
        let (found, injected) = (&run["shifts_found"]["found"], &run["shifts_found"]["injected"]);
        let share = found.as_f64().unwrap_or_default() / injected.as_f64().unwrap_or(f64::NAN);
        if !whole || share < 0.95 {
            missed.push(format!(
                "read back {} of {}, shifts {found} of {injected}, errors {}",
                run["read_back"], run["read_back_of"], run["http_errors"]
            ));
        }
    }
    missed
}

/// One target from an empty disk to its end.
fn one(name: &str, bodies: &Bodies, options: &Options) -> anyhow::Result<Value> {
    let mut target = Target::start(name, options.lake)?;
    let at_start = target.usage()?;
    let profile = target.profile()?;
    let started = Instant::now();
    let errors = load(&target, bodies, &bodies.saturated, None)?.1;
    target.settle()?;
    let sent = (bodies.samples(&bodies.saturated) + bodies.samples(&bodies.paced)) as u64;
    let half = target.tables(bodies.samples(&bodies.saturated) as u64)?;
    let wall = started.elapsed().as_secs_f64();
    let loaded = target.usage()?;
    let stages = profile.map(|profile| profile.end(options.flame.as_deref())).transpose()?;
    let millions = bodies.samples(&bodies.saturated) as f64 / 1e6;
    let cpu = loaded.cpu_s - at_start.cpu_s;

    let (mut latencies, more_errors) = load(&target, bodies, &bodies.paced, Some(PACE_PER_S))?;
    target.settle()?;
    let tables = target.tables(sent)?;
    let read_back = target.read_back(bodies)?;
    let found = target.shifts_found(bodies)?;
    let paced = target.usage()?;
    latencies.sort_unstable_by(f64::total_cmp);
    let quantile = |q: f64| latencies.get((latencies.len() as f64 * q) as usize).copied().unwrap_or(f64::NAN);
    let paced_millions = bodies.samples(&bodies.paced) as f64 / 1e6;
    // Reading back is not intake: for the paced part CPU is read before it, memory after it.
    let paced_cpu = target.paced_cpu_s() - loaded.cpu_s;
    // When the clock stopped: of what was paced nothing spans six hours, so nothing of it is finished.
    let kept = match &half {
        // Short of six hours of a series there is none that is finished.
        Some(tables) => tables["finished_bytes_per_sample"].as_f64().or_else(|| tables["bytes_per_sample"].as_f64()),
        None => target.data_bytes(name)?.map(|bytes| bytes as f64 / sent as f64),
    };
    target.end()?;
    Ok(json!({
        "cpu_s_per_m_saturated": cpu / millions,
        "cpu_s_per_m_50k": paced_cpu / paced_millions,
        "samples_per_s": millions * 1e6 / wall,
        "samples_per_s_core": millions * 1e6 / cpu,
        "rss_mib_at_start": at_start.rss_kib / 1024.0,
        "rss_mib": paced.rss_kib / 1024.0,
        "rss_kib_per_series": (paced.rss_kib - at_start.rss_kib) / bodies.series as f64,
        "ack_ms": { "p50": quantile(0.5), "p99": quantile(0.99) },
        "http_errors": errors + more_errors,
        "sent": sent,
        "read_back": read_back.map(|found| found.read),
        "read_back_of": read_back.map(|found| found.sent),
        "read_back_ms_each": read_back.map(|found| found.each_ms),
        "shifts_found": found,
        "bytes_per_sample": kept,
        "tables_saturated": half,
        "tables": tables,
        "stages": by_stage(stages, cpu / millions),
    }))
}

/// CPU-seconds per million samples of each stage, by the profiler's shares.
fn by_stage(shares: Option<Value>, cpu_s_per_m: f64) -> Value {
    let shares = shares.unwrap_or_else(|| json!({}));
    let each = shares.as_object().into_iter().flatten();
    each.map(|(stage, share)| (stage.clone(), json!(share.as_f64().unwrap_or_default() * cpu_s_per_m))).collect()
}

/// Sends all bodies over a few connections; latencies in ms and the number of errors. With a pace, each
/// request has its due time. A series stays with its connection, as it stays with its shard in Prometheus: what comes
/// out of order is refused by some and dear for others.
fn load(target: &Target, bodies: &Bodies, requests: &[Vec<u8>], pace: Option<f64>) -> anyhow::Result<(Vec<f64>, u64)> {
    let (errors, latencies) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (errors, latencies) = (&errors, &latencies);
            scope.spawn(move || {
                let client = target.client();
                let mut own = Vec::new();
                let mine = |(at, _): &(usize, &Vec<u8>)| at % bodies.requests_a_step() % CONNECTIONS == connection;
                for (at, body) in requests.iter().enumerate().filter(mine) {
                    if let Some(pace) = pace {
                        let due = Duration::from_secs_f64(at as f64 * PER_REQUEST as f64 / pace);
                        std::thread::sleep(due.saturating_sub(started.elapsed()));
                    }
                    let sent = Instant::now();
                    if !client.send(body) {
                        errors.fetch_add(1, Ordering::Relaxed);
                    }
                    own.push(sent.elapsed().as_secs_f64() * 1000.0);
                }
                latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            });
        }
    });
    let latencies = latencies.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(latencies.len() == requests.len(), "a sender ended early");
    Ok((latencies, errors.into_inner()))
}

fn medians(runs: &[Value]) -> Value {
    let mut all = serde_json::Map::new();
    for run in runs {
        let key = format!("{}, {} series", run["target"].as_str().unwrap_or_default(), run["series"]);
        if all.contains_key(&key) {
            continue;
        }
        let like = |other: &&Value| other["target"] == run["target"] && other["series"] == run["series"];
        let mut figures = serde_json::Map::new();
        for name in FIGURES {
            figures.insert(
                (*name).to_owned(),
                json!(median(runs.iter().filter(like).filter_map(|run| figure(run, name)))),
            );
        }
        all.insert(key, Value::Object(figures));
    }
    Value::Object(all)
}

const SATURATED: &str = "cpu_s_per_m_saturated";
const FIGURES: &[&str] = &[
    SATURATED,
    "cpu_s_per_m_50k",
    "rss_kib_per_series",
    "ack_ms.p50",
    "ack_ms.p99",
    "samples_per_s",
    "bytes_per_sample",
];

fn figure(run: &Value, name: &str) -> Option<f64> {
    match name.split_once('.') {
        Some((group, name)) => run[group][name].as_f64(),
        None => run[name].as_f64(),
    }
}

/// Ours over each peer's, within each repetition; the median of those. Plain names stand for the largest
/// number of series.
fn ratios(runs: &[Value]) -> Value {
    let mut all = serde_json::Map::new();
    for (label, name) in [
        ("cpu", "cpu_s_per_m_saturated"),
        ("cpu_50k", "cpu_s_per_m_50k"),
        ("rss", "rss_kib_per_series"),
        ("ack_p99", "ack_ms.p99"),
        ("bytes", "bytes_per_sample"),
    ] {
        for peer in target::NAMES.iter().filter(|peer| **peer != "wardroom") {
            let name_of = format!("{label}_vs_{}", peer.replace('-', "_"));
            let mut largest = (0, Value::Null);
            for ours in runs.iter().filter(|run| run["target"] == "wardroom") {
                let same = |run: &&Value| run["target"] == *peer && run["series"] == ours["series"];
                let pairs = runs.iter().filter(same).filter_map(|theirs| {
                    let ours = runs.iter().find(|run| {
                        run["target"] == "wardroom"
                            && run["series"] == theirs["series"]
                            && run["repeat"] == theirs["repeat"]
                    })?;
                    Some(figure(ours, name)? / figure(theirs, name)?)
                });
                if let Some(ratio) = median(pairs) {
                    let series = ours["series"].as_u64().unwrap_or_default();
                    all.insert(format!("{name_of}_at_{series}"), json!(ratio));
                    if series >= largest.0 {
                        largest = (series, json!(ratio));
                    }
                }
            }
            all.insert(name_of, largest.1);
        }
    }
    Value::Object(all)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_grew_by_more_than_a_quarter_is_told() {
        let run = |target: &str, cpu: f64, receive: f64| json!({ "target": target, "series": 10_000, SATURATED: cpu, "stages": { "receive": receive } });
        let report =
            |receive: f64| json!({ "runs": [run("wardroom", 0.3, receive), run("victoria-metrics", 2.0, 0.0)] });
        assert_eq!(grown(&report(0.149 * 2.0 * 1.2)), Vec::<String>::new());
        assert!(grown(&report(0.149 * 2.0 * 1.3))[0].starts_with("receive at 10000 series"));
    }
}
