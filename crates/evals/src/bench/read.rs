//! `bench read`: queries of historical data with a cold page cache.
//!
//! Writes a day of samples and ten million log records as the lake holds them at the end of a day. Measures: one series
//! of all in a new process with an empty page cache; a rare word and a template among the log records, next to DuckDB
//! on the same files and `zstdcat | rg` on the same text; and what ten SQL users do to the senders' acknowledgements.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_detect::template;
use wardroom_domain::{Entity, Labels, LogEntry, Sample, Severity, TenantId, Timestamp};
use wardroom_lake::{Config, EventBatch, Flush, Lake, LogLine, NewSeries, RequestOrigin};
use wardroom_roles::bus_epoch::{BusEpochError, new_epoch};
use wardroom_testing::{Server, server};

use super::intake::PACED_SAMPLES_PER_S;
use super::load::send;
use super::process_usage::process_tree_usage;
use super::remote_write_bodies::{Bodies, PhaseSteps};
use super::run_environment::{commit, machine};
use super::statistics::median;
use super::target::{LakeOptions, Target};
use crate::child_process::ChildProcess;
use crate::client_python::python;
use crate::progress::print_progress;

/// Start of the day that is queried.
const DAY_MS: i64 = 20_780 * 86_400_000;
/// Series of one metric name.
const SERIES_PER_NAME: i64 = 1000;
/// A word in one log record of a million.
const RARE_WORD: &str = "xylophone";
/// Start of one log record in ten thousand.
const RARE_TEMPLATE: &str = "pool of upstream exhausted after";
/// Length of the load, without and with SQL users.
const LOAD_DURATION: Duration = Duration::from_secs(20);
/// Concurrent SQL users.
const SQL_USERS: usize = 10;

struct Options {
    series: i64,
    step_ms: i64,
    lines: u64,
    repeat: usize,
}

/// Runs the benchmark.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut options = Options { series: 100_000, step_ms: 15_000, lines: 10_000_000, repeat: 5 };
    let (mut file, mut check) = (None, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("series") => options.series = arguments.value()?.parse()?,
            Long("step-seconds") => options.step_ms = 1000 * arguments.value()?.parse::<i64>()?,
            Long("lines") => options.lines = arguments.value()?.parse()?,
            Long("repeat") => options.repeat = arguments.value()?.parse()?,
            Long("check") => check = true,
            Long("json") => file = Some(PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    // A server that has been started once creates everything but the tables, which are written here.
    let mut target = Target::start("wardroom", LakeOptions::ON)?;
    let server = target.server()?;
    server.kill();
    let data = server.dir.join("data");
    std::fs::remove_dir_all(data.join("lake"))?;
    let text = data.with_file_name("lines.zst");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (text_bytes, tables) = runtime.block_on(async {
        let lake = Lake::open(&Config::default(), &data).await?;
        write_samples(&lake, &options).await?;
        let bytes = write_log_records(&lake, &options, &text).await?;
        // The tables contain more than the bus, on which no server starts.
        match new_epoch(&wardroom_roles::Config::default(), &data).await {
            Ok(_) | Err(BusEpochError::NotNeeded { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        anyhow::Ok((bytes, lake.verify_snapshot().await?))
    })?;
    let mut report = json!({ "commit": commit(), "machine": machine(), "series": options.series,
        "step_s": options.step_ms / 1000, "lines": options.lines });
    // Files per table after all merges.
    report["files"] = tables.iter().map(|table| (table.table.to_owned(), json!(table.files))).collect();
    report["series_cold_ms"] = json!(query_one_series(&data, &options)?);
    target.server()?.restart()?;
    report["logs"] = search_logs(&mut target, &data, (&text, text_bytes), &options)?;
    let server = target.server()?;
    let (url, token) = (format!("{}/api/v1/sql?format=json", server.url), format!("Bearer {}", server.responder_token));
    report["sql_users"] = load_with_sql_users(&target, &url, &token)?;
    target.stop()?;
    print_progress(serde_json::to_string_pretty(&report)?);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    let missed = missed_goals(&report);
    missed.iter().for_each(|goal| print_progress(format!("missed: {goal}")));
    ensure!(!check || missed.is_empty(), "{} goals missed", missed.len());
    Ok(())
}

/// Returns a line for each goal that the report misses.
fn missed_goals(report: &Value) -> Vec<String> {
    let goals = [
        ("a day of one series, cold, in ms", &report["series_cold_ms"], 100.0),
        ("a rare word, in s", &report["logs"]["word"]["wardroom_s"], 2.0),
        ("a template, in s", &report["logs"]["template"]["wardroom_s"], 0.3),
        ("p99 of acknowledgements with SQL users, relative to without", &report["sql_users"]["ratio"], 1.5),
    ];
    let missed = goals.into_iter().filter_map(|(name, found, goal)| {
        let found = found.as_f64().unwrap_or(f64::INFINITY);
        (found > goal).then(|| format!("{name}: {found:.2}, goal {goal}"))
    });
    missed.collect()
}

/// Writes a day of samples: merged files up to the last hour, and the flushes since.
async fn write_samples(lake: &Lake, options: &Options) -> anyhow::Result<()> {
    print_progress(format!("a day of {} series, a sample every {} s", options.series, options.step_ms / 1000));
    let tenant = TenantId::main();
    // Three merged periods of a little more than six hours from two flushes each, then what is not merged yet.
    let minutes = |minutes: i64| minutes * 60_000;
    let boundaries = [0, 190, 380, 570, 760, 950, 1140, 1380].map(minutes);
    let short = (138..144).map(|number| (minutes(number * 10), minutes(number * 10 + 10)));
    let periods = boundaries.windows(2).map(|pair| (pair[0], pair[1])).chain(short);
    for (offset, (from, to)) in (1..).zip(periods) {
        let mut flush = Flush::new(offset);
        let mut samples = Vec::new();
        for series in 0..options.series {
            samples.clear();
            let mut offset_ms = from;
            while offset_ms < to {
                samples.push(Sample { ts_ms: DAY_MS + offset_ms, value: value(series, offset_ms / options.step_ms) });
                offset_ms += options.step_ms;
            }
            flush.push(&tenant, series + 1, &samples)?;
        }
        let new = |series: i64| {
            let (name, n) = (format!("metric_{}", series / SERIES_PER_NAME), (series % SERIES_PER_NAME).to_string());
            let labels = [("__name__", name.as_str()), ("instance", &n), ("job", "node"), ("zone", "eu-west-1")];
            let (tenant, labels, entity) = (tenant.clone(), Labels::of(&labels), Entity::service("node"));
            NewSeries { tenant, id: series + 1, labels, entity, first_ms: DAY_MS }
        };
        let new: Vec<_> = if offset == 1 { (0..options.series).map(new).collect() } else { Vec::new() };
        lake.flush(flush, &new, Timestamp::from_millis(DAY_MS)).await?;
        if offset % 2 == 0 && to <= minutes(1140) {
            lake.maintain(None).await?;
        }
    }
    Ok(())
}

/// Returns a sample of a series: two counters, two gauges and a latency in turn.
fn value(series: i64, step: i64) -> f64 {
    let noise = (series * 7919 + step * 104_729) % 1009;
    match series % 5 {
        0 | 1 => (step * 50 + noise % 20) as f64,
        2 | 3 => (noise % 300) as f64 / 10.0,
        _ => noise as f64 / 1000.0,
    }
}

/// Writes log records to the lake and as compressed text; returns the bytes of the text.
async fn write_log_records(lake: &Lake, options: &Options, text: &Path) -> anyhow::Result<u64> {
    print_progress(format!("{} log lines", options.lines));
    let mut zstd: ChildProcess =
        program("ZSTD_BIN").args(["-q", "-3", "-o"]).arg(text).stdin(Stdio::piped()).spawn()?.into();
    let mut pipe = std::io::BufWriter::with_capacity(1 << 20, zstd.stdin.take().context("no pipe")?);
    let (mut random, tenant) = (StdRng::seed_from_u64(1), TenantId::main());
    let mut events = EventBatch::new(lake.committed_event_offsets().await?);
    let (mut shape, mut bytes, web) = (String::new(), 0, Entity::service("web"));
    let labels = Labels::of(&[("region", "eu-west-1"), ("pod", "web-7d9f")]);
    for number in 0..options.lines {
        let at = Timestamp::from_millis(DAY_MS + (number * 86_400_000 / options.lines) as i64);
        let (id, duration_ms): (u32, u32) = (random.random(), random.random_range(1..900));
        let message = match number {
            number if number % 1_000_000 == 999_999 => format!("request {id:08x} asked for a {RARE_WORD} and got none"),
            number if number % 10_000 == 77 => format!("{RARE_TEMPLATE} {duration_ms} ms, request {id:08x} dropped"),
            number => match number % 4 {
                0 => format!("GET /api/v1/orders/{id} took {duration_ms} ms status=200 trace={id:08x}"),
                1 => {
                    format!("cache miss for key orders:{id} in shard {}, read from store in {duration_ms} ms", id % 64)
                }
                2 => format!("user {} logged in from 10.{}.{}.7", id % 100_000, id % 250, duration_ms % 250),
                _ => {
                    format!(
                        "job {id:08x} finished: {duration_ms} rows written, {} skipped, queue depth {}",
                        duration_ms / 7,
                        id % 90
                    )
                }
            },
        };
        let line = format!("{at} web {message}\n");
        bytes += line.len() as u64;
        pipe.write_all(line.as_bytes())?;
        let severity = if number % 50 == 0 { Severity::Warning } else { Severity::Info };
        let log = LogEntry { at, severity, message, service: "web".into(), labels: labels.clone() };
        let mut parameters = Vec::new();
        template(&log.message, &mut shape, &mut parameters);
        let line = LogLine { log: &log, entity: &web, template: &shape, parameters: &parameters };
        events.add_log(&RequestOrigin::new(tenant.clone(), number, at, Some(number)), 0, &line)?;
        if events.memory_bytes() >= 32 << 20 || number + 1 == options.lines {
            lake.commit_events(&events.finish(number + 1, at)?).await?;
        }
    }
    pipe.flush()?;
    drop(pipe);
    ensure!(zstd.wait()?.success(), "zstd failed");
    while lake.maintain(None).await?.files_in > 0 {}
    Ok(bytes)
}

/// Returns the command line that dumps one series.
fn dump_arguments(data: &Path, series: i64) -> [String; 6] {
    let selector = format!("metric_{}{{instance=\"{}\"}}", series / SERIES_PER_NAME, series % SERIES_PER_NAME);
    ["samples", "dump", "--data", &data.display().to_string(), "--match", &selector].map(str::to_owned)
}

/// Reads a day of one series in a new process; returns the median time in ms.
fn query_one_series(data: &Path, options: &Options) -> anyhow::Result<Option<f64>> {
    let (mut random, mut all) = (StdRng::seed_from_u64(2), Vec::new());
    for _ in 0..options.repeat {
        let series = random.random_range(0..options.series);
        let arguments = dump_arguments(data, series);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        drop_page_cache();
        let started = Instant::now();
        let (code, text) = server::run(&arguments)?;
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        let found = text.lines().count() as i64;
        ensure!(code == Some(0) && found == 86_400_000 / options.step_ms, "{series}: {found} samples");
        print_progress(format!("series {series}: {found} samples in {ms:.0} ms"));
        all.push(ms);
    }
    Ok(median(all.into_iter()))
}

/// Searches a word and a template in the log records of a day, whose text is given with its size in bytes.
fn search_logs(
    target: &mut Target,
    data: &Path,
    (text, text_bytes): (&Path, u64),
    options: &Options,
) -> anyhow::Result<Value> {
    let server: &Server = target.server()?;
    let day = format!("start={}&end={}", DAY_MS / 1000, DAY_MS / 1000 + 86_400);
    let query = |query: &str| {
        let (status, text) =
            server.get(&format!("/api/v1/logs?{day}&limit=100&query={query}"), &server.responder_token)?;
        ensure!(status == 200, "{status} {text}");
        Ok(serde_json::from_str::<Vec<Value>>(&text)?)
    };
    let rare = query("%22upstream%20exhausted%22")?;
    let template = rare.first().and_then(|line| line["template_id"].as_str()).context("no such log record")?.to_owned();
    let pid = server.processes().first().map_or(0, |(_, pid)| *pid);
    let mut report = json!({ "text_bytes": text_bytes, "zst_bytes": std::fs::metadata(text)?.len() });
    let per_gb = |cpu_s: Option<f64>| cpu_s.map(|cpu_s| cpu_s * 1e9 / text_bytes as f64);
    let kinds = [
        ("word", RARE_WORD.to_owned(), format!("message LIKE '%{RARE_WORD}%'"), RARE_WORD.to_owned()),
        ("template", format!("template={template}"), format!("template_id = '{template}'"), RARE_TEMPLATE.to_owned()),
    ];
    for (kind, query_text, sql, grep) in kinds {
        let (mut wall, mut cpu, mut found) = (Vec::new(), Vec::new(), 0);
        for _ in 0..options.repeat {
            let before = process_tree_usage(pid).cpu_s;
            let started = Instant::now();
            found = query(&query_text)?.len();
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(process_tree_usage(pid).cpu_s - before);
        }
        let (duckdb_s, duckdb_cpu_s) = search_with_duckdb(data, &sql)?;
        let (rg_s, rg_cpu_s) = search_with_ripgrep(text, &grep)?;
        let (wall, cpu) = (median(wall.into_iter()), median(cpu.into_iter()));
        report[kind] = json!({ "found": found, "wardroom_s": wall, "wardroom_cpu_s_per_gb": per_gb(cpu),
            "duckdb_s": duckdb_s, "duckdb_cpu_s_per_gb": per_gb(Some(duckdb_cpu_s)), "zstdcat_rg_s": rg_s,
            "zstdcat_rg_cpu_s_per_gb": per_gb(Some(rg_cpu_s)) });
        print_progress(format!("{kind}: {}", report[kind]));
    }
    Ok(report)
}

/// Searches the same table with DuckDB; returns seconds of wall time and of CPU.
fn search_with_duckdb(data: &Path, condition: &str) -> anyhow::Result<(f64, f64)> {
    let script = "import sys,time,os,glob,duckdb,duckdb_extension_delta as d
db=duckdb.connect(config={'allow_unsigned_extensions':'true'})
db.execute('PRAGMA disable_progress_bar')
db.execute(f\"LOAD '{glob.glob(os.path.dirname(d.__file__)+'/extensions/*/delta.duckdb_extension')[0]}'\")
best=[]
for _ in range(3):
    wall,cpu=time.time(),time.process_time()
    db.execute(f\"SELECT ts, message FROM delta_scan('{sys.argv[1]}/lake/silver/logs') WHERE {sys.argv[2]} ORDER BY ts DESC LIMIT 100\").fetchall()
    best.append((time.time()-wall,time.process_time()-cpu))
print(*sorted(best)[1])";
    let output = python().args(["-c", script]).arg(data).arg(condition).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    let (wall, cpu) = printed.trim().split_once(' ').context("DuckDB printed no figures")?;
    Ok((wall.parse()?, cpu.parse()?))
}

/// Searches the same text with `zstdcat | rg`; returns seconds of wall time and of CPU of both.
fn search_with_ripgrep(text: &Path, pattern: &str) -> anyhow::Result<(f64, f64)> {
    let started = Instant::now();
    let before = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let mut cat: ChildProcess =
        program("ZSTD_BIN").args(["-q", "-dc"]).arg(text).stdout(Stdio::piped()).spawn()?.into();
    let pipe = cat.stdout.take().context("no pipe")?;
    let output = program("RG_BIN").args(["-c", "-F", pattern]).stdin(pipe).output()?;
    ensure!(output.status.success() && cat.wait()?.success(), "rg or zstd failed");
    let wall = started.elapsed().as_secs_f64();
    let after = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu_s = |usage: nix::sys::resource::Usage| seconds(usage.user_time()) + seconds(usage.system_time());
    Ok((wall, cpu_s(after) - cpu_s(before)))
}

/// Measures the p99 of acknowledgements without and with SQL users.
fn load_with_sql_users(target: &Target, url: &str, token: &str) -> anyhow::Result<Value> {
    let steps = (PACED_SAMPLES_PER_S * LOAD_DURATION.as_secs_f64()) as usize / 10_000;
    let bodies = Bodies::build(10_000, PhaseSteps { saturated: steps, paced: steps, own_pace: 0 }, false);
    let p99 = |requests: &[Vec<u8>]| {
        let outcome = send(target, &bodies, requests, Some(PACED_SAMPLES_PER_S))?;
        ensure!(outcome.errors == 0, "{} requests failed", outcome.errors);
        anyhow::Ok(outcome.latency_ms(0.99))
    };
    let alone = p99(&bodies.saturated)?;
    let (stop, completed, stopped) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let failure = Mutex::new(None);
    let with_users = std::thread::scope(|scope| {
        for user in 0..SQL_USERS {
            let (stop, completed, stopped, failure) = (&stop, &completed, &stopped, &failure);
            scope.spawn(move || {
                let query = format!(
                    "SELECT severity, count(*) FROM logs WHERE template_id <> '{user}' AND day = DATE '2026-11-23' GROUP BY 1"
                );
                while !stop.load(Ordering::Acquire) {
                    let request = ureq::post(url).header("Authorization", token).header("Content-Type", "text/plain");
                    let request = request.config().http_status_as_error(false).build();
                    let response = request.send(&query).and_then(|mut response| {
                        let text = response.body_mut().read_to_string()?;
                        Ok((response.status().as_u16(), text))
                    });
                    match response {
                        Ok((200, _)) => completed.fetch_add(1, Ordering::Relaxed),
                        // The query exceeded its limit of time or memory.
                        Ok((503, text)) if stopped.fetch_add(1, Ordering::Relaxed) == 0 => {
                            print_progress(text);
                            0
                        }
                        Ok((503, _)) => 0,
                        other => {
                            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{other:?}"));
                            break;
                        }
                    };
                }
            });
        }
        let with_users = p99(&bodies.paced);
        stop.store(true, Ordering::Release);
        with_users
    })?;
    if let Some(response) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        anyhow::bail!("a query failed: {response}");
    }
    let (completed, stopped) = (completed.into_inner(), stopped.into_inner());
    ensure!(completed > 0, "no query succeeded, {stopped} exceeded their limits");
    Ok(
        json!({ "ack_p99_ms_alone": alone, "ack_p99_ms_beside": with_users, "ratio": with_users / alone, "completed": completed,
        "stopped": stopped }),
    )
}

fn drop_page_cache() {
    nix::unistd::sync();
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        print_progress("the page cache cannot be dropped; the result is for a warm cache");
    }
}

#[expect(clippy::disallowed_methods, reason = "the other readers are separate programs")]
fn program(variable: &str) -> Command {
    let mut command = Command::new(server::program(variable));
    command.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    command
}
