//! `bench read`: questions about the past, as somebody asks them who has waited for nothing before.
//!
//! A day of many series and ten million log lines are written as the tables hold them at the end of a day. Then:
//! one series out of all of them in a new process with the page cache dropped; a rare word and a template among the lines, beside
//! DuckDB over the same files and `zstdcat | rg` over the same text; and what ten people who ask in SQL do to the
//! acknowledgement of whoever sends meanwhile.

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
use wardroom_domain::{Labels, LogEntry, Sample, Severity, TenantId, Timestamp};
use wardroom_lake::{Config, Events, Flush, Lake, Line, NewSeries, Origin};
use wardroom_testing::{Server, server};

use super::bodies::Bodies;
use super::process::usage;
use super::target::Target;
use super::{PACE_PER_S, load, median, process};
use crate::silver::python;
use crate::tell;

/// The day that is asked about.
const DAY_MS: i64 = 20_780 * 86_400_000;
/// Series that bear one name.
const OF_A_NAME: i64 = 1000;
/// What one line in a million says.
const RARE: &str = "xylophone";
/// What one line in ten thousand looks like.
const SELDOM: &str = "pool of upstream exhausted after";
/// How long senders are watched, with and without people who ask.
const WATCHED: Duration = Duration::from_secs(20);
/// People who ask at one time.
const PEOPLE: usize = 10;

pub(super) struct Options {
    pub(super) series: i64,
    pub(super) step_ms: i64,
    pub(super) lines: u64,
    pub(super) repeat: usize,
}

/// A data folder with everything but tables.
pub(super) struct Day {
    pub(super) target: Target,
    pub(super) data: PathBuf,
}

/// A server that was started once and holds nothing.
pub(super) fn day() -> anyhow::Result<Day> {
    let mut target = Target::start("wardroom", true)?;
    let server = target.server()?;
    server.kill();
    let data = server.dir.join("data");
    std::fs::remove_dir_all(data.join("lake"))?;
    Ok(Day { target, data })
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
    let Day { mut target, data } = day()?;
    let text = data.with_file_name("lines.zst");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (bytes, held) = runtime.block_on(async {
        let lake = Lake::open(&Config::default(), &data).await?;
        samples(&lake, &options).await?;
        let bytes = lines(&lake, &options, &text).await?;
        anyhow::Ok((bytes, lake.check().await?))
    })?;
    let mut report = json!({ "commit": process::commit(), "machine": process::machine(), "series": options.series,
        "step_s": options.step_ms / 1000, "lines": options.lines });
    // A day's files, after all merging.
    report["files"] = held.iter().map(|table| (table.table.to_owned(), json!(table.files))).collect();
    report["series_cold_ms"] = json!(one_series(&data, &options)?);
    target.server()?.restart()?;
    report["logs"] = search(&mut target, &data, (&text, bytes), &options)?;
    let server = target.server()?;
    let (url, token) = (format!("{}/api/v1/sql?format=json", server.url), format!("Bearer {}", server.responder));
    report["sql_users"] = users(&target, &url, &token)?;
    target.end()?;
    tell(serde_json::to_string_pretty(&report)?);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    let missed = missed(&report);
    missed.iter().for_each(|goal| tell(format!("missed: {goal}")));
    ensure!(!check || missed.is_empty(), "{} goals missed", missed.len());
    Ok(())
}

fn missed(report: &Value) -> Vec<String> {
    let goals = [
        ("a day of one series, cold, in ms", &report["series_cold_ms"], 100.0),
        ("a rare word, in s", &report["logs"]["word"]["wardroom_s"], 2.0),
        ("a template, in s", &report["logs"]["template"]["wardroom_s"], 0.3),
        ("p99 of the acknowledgement with people asking, over without", &report["sql_users"]["ratio"], 1.5),
    ];
    let missed = goals.into_iter().filter_map(|(what, found, goal)| {
        let found = found.as_f64().unwrap_or(f64::INFINITY);
        (found > goal).then(|| format!("{what}: {found:.2}, goal {goal}"))
    });
    missed.collect()
}

/// A day of samples: merged files up to the last hour, and what was flushed since.
pub(super) async fn samples(lake: &Lake, options: &Options) -> anyhow::Result<()> {
    tell(format!("a day of {} series, a sample every {} s", options.series, options.step_ms / 1000));
    let tenant = TenantId::main();
    // Three merged stretches of a little more than six hours, each from two; then what the day's last merge has yet to take.
    let minutes = |minutes: i64| minutes * 60_000;
    let long = [0, 190, 380, 570, 760, 950, 1140, 1380].map(minutes);
    let short = (138..144).map(|part| (minutes(part * 10), minutes(part * 10 + 10)));
    let parts = long.windows(2).map(|part| (part[0], part[1])).chain(short);
    for (offset, (from, to)) in (1..).zip(parts) {
        let mut flush = Flush::new(offset);
        let mut run = Vec::new();
        for series in 0..options.series {
            run.clear();
            let mut at = from;
            while at < to {
                run.push(Sample { ts_ms: DAY_MS + at, value: value(series, at / options.step_ms) });
                at += options.step_ms;
            }
            flush.push(&tenant, series + 1, &run)?;
        }
        let new = |series: i64| {
            let (name, n) = (format!("metric_{}", series / OF_A_NAME), (series % OF_A_NAME).to_string());
            let labels = [("__name__", name.as_str()), ("instance", &n), ("job", "node"), ("zone", "eu-west-1")];
            NewSeries { tenant: tenant.clone(), id: series + 1, labels: Labels::of(&labels), first_ms: DAY_MS }
        };
        let new: Vec<_> = if offset == 1 { (0..options.series).map(new).collect() } else { Vec::new() };
        lake.flush(flush, &new, Timestamp::from_millis(DAY_MS)).await?;
        if offset % 2 == 0 && to <= minutes(1140) {
            lake.maintain(None).await?;
        }
    }
    Ok(())
}

/// Two counters, two gauges and a latency, in turn.
fn value(series: i64, step: i64) -> f64 {
    let noise = (series * 7919 + step * 104_729) % 1009;
    match series % 5 {
        0 | 1 => (step * 50 + noise % 20) as f64,
        2 | 3 => (noise % 300) as f64 / 10.0,
        _ => noise as f64 / 1000.0,
    }
}

/// Log lines in their table, and as compressed text; how many bytes of text they are.
async fn lines(lake: &Lake, options: &Options, text: &Path) -> anyhow::Result<u64> {
    tell(format!("{} log lines", options.lines));
    let mut zstd = program("ZSTD_BIN").args(["-q", "-3", "-o"]).arg(text).stdin(Stdio::piped()).spawn()?;
    let mut pipe = std::io::BufWriter::with_capacity(1 << 20, zstd.stdin.take().context("no pipe")?);
    let (mut random, tenant) = (StdRng::seed_from_u64(1), TenantId::main());
    let mut events = Events::new(lake.events_reached().await?);
    let (mut shape, mut bytes) = (String::new(), 0);
    let labels = Labels::of(&[("region", "eu-west-1"), ("pod", "web-7d9f")]);
    for number in 0..options.lines {
        let at = Timestamp::from_millis(DAY_MS + (number * 86_400_000 / options.lines) as i64);
        let (id, took): (u32, u32) = (random.random(), random.random_range(1..900));
        let message = match number {
            number if number % 1_000_000 == 999_999 => format!("request {id:08x} asked for a {RARE} and got none"),
            number if number % 10_000 == 77 => format!("{SELDOM} {took} ms, request {id:08x} dropped"),
            number => match number % 4 {
                0 => format!("GET /api/v1/orders/{id} took {took} ms status=200 trace={id:08x}"),
                1 => format!("cache miss for key orders:{id} in shard {}, read from store in {took} ms", id % 64),
                2 => format!("user {} logged in from 10.{}.{}.7", id % 100_000, id % 250, took % 250),
                _ => {
                    format!("job {id:08x} finished: {took} rows written, {} skipped, queue depth {}", took / 7, id % 90)
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
        let line = Line { log: &log, service: "web", template: &shape, parameters: &parameters };
        events.log(&Origin::new(tenant.clone(), number, at, Some(number)), 0, &line)?;
        if events.bytes() >= 32 << 20 || number + 1 == options.lines {
            lake.land(&events.finish(number + 1, at)?).await?;
        }
    }
    pipe.flush()?;
    drop(pipe);
    ensure!(zstd.wait()?.success(), "zstd failed");
    while lake.maintain(None).await?.files_in > 0 {}
    Ok(bytes)
}

/// All of one series, asked for on the command line.
pub(super) fn question(data: &Path, series: i64) -> [String; 6] {
    let selector = format!("metric_{}{{instance=\"{}\"}}", series / OF_A_NAME, series % OF_A_NAME);
    ["samples", "dump", "--data", &data.display().to_string(), "--match", &selector].map(str::to_owned)
}

/// A day of one series in a new process, in ms; the median over several.
fn one_series(data: &Path, options: &Options) -> anyhow::Result<Option<f64>> {
    let (mut random, mut all) = (StdRng::seed_from_u64(2), Vec::new());
    for _ in 0..options.repeat {
        let series = random.random_range(0..options.series);
        let question = question(data, series);
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        cold();
        let started = Instant::now();
        let (code, text) = server::run(&question)?;
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        let found = text.lines().count() as i64;
        ensure!(code == Some(0) && found == 86_400_000 / options.step_ms, "{series}: {found} samples");
        tell(format!("series {series}: {found} samples in {ms:.0} ms"));
        all.push(ms);
    }
    Ok(median(all.into_iter()))
}

/// A word and a template among the lines of a day, which are so many bytes of text.
fn search(target: &mut Target, data: &Path, (text, bytes): (&Path, u64), options: &Options) -> anyhow::Result<Value> {
    let server: &Server = target.server()?;
    let day = format!("start={}&end={}", DAY_MS / 1000, DAY_MS / 1000 + 86_400);
    let query = |query: &str| {
        let (status, text) = server.get(&format!("/api/v1/logs?{day}&limit=100&query={query}"), &server.responder)?;
        ensure!(status == 200, "{status} {text}");
        Ok(serde_json::from_str::<Vec<Value>>(&text)?)
    };
    let seldom = query("%22upstream%20exhausted%22")?;
    let template = seldom.first().and_then(|line| line["template_id"].as_str()).context("no such line")?.to_owned();
    let pid = server.processes().first().map_or(0, |(_, pid)| *pid);
    let mut report = json!({ "text_bytes": bytes, "zst_bytes": std::fs::metadata(text)?.len() });
    let a_gb = |cpu_s: Option<f64>| cpu_s.map(|cpu_s| cpu_s * 1e9 / bytes as f64);
    let kinds = [
        ("word", RARE.to_owned(), format!("message LIKE '%{RARE}%'"), RARE.to_owned()),
        ("template", format!("template={template}"), format!("template_id = '{template}'"), SELDOM.to_owned()),
    ];
    for (kind, ours, sql, grep) in kinds {
        let (mut wall, mut cpu, mut found) = (Vec::new(), Vec::new(), 0);
        for _ in 0..options.repeat {
            let before = usage(pid).cpu_s;
            let started = Instant::now();
            found = query(&ours)?.len();
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(usage(pid).cpu_s - before);
        }
        let (duckdb_s, duckdb_cpu_s) = duckdb(data, &sql)?;
        let (rg_s, rg_cpu_s) = grepped(text, &grep)?;
        let (wall, cpu) = (median(wall.into_iter()), median(cpu.into_iter()));
        report[kind] = json!({ "found": found, "wardroom_s": wall, "wardroom_cpu_s_per_gb": a_gb(cpu),
            "duckdb_s": duckdb_s, "duckdb_cpu_s_per_gb": a_gb(Some(duckdb_cpu_s)), "zstdcat_rg_s": rg_s,
            "zstdcat_rg_cpu_s_per_gb": a_gb(Some(rg_cpu_s)) });
        tell(format!("{kind}: {}", report[kind]));
    }
    Ok(report)
}

/// The same in DuckDB over the same table: seconds, and of its processor.
fn duckdb(data: &Path, condition: &str) -> anyhow::Result<(f64, f64)> {
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
    let (wall, cpu) = printed.trim().split_once(' ').context("no figures")?;
    Ok((wall.parse()?, cpu.parse()?))
}

/// The same by `zstdcat | rg` over the same text: seconds, and of both processors.
fn grepped(text: &Path, words: &str) -> anyhow::Result<(f64, f64)> {
    let started = Instant::now();
    let before = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let mut cat = program("ZSTD_BIN").args(["-q", "-dc"]).arg(text).stdout(Stdio::piped()).spawn()?;
    let pipe = cat.stdout.take().context("no pipe")?;
    let output = program("RG_BIN").args(["-c", "-F", words]).stdin(pipe).output()?;
    ensure!(output.status.success() && cat.wait()?.success(), "rg or zstd failed");
    let wall = started.elapsed().as_secs_f64();
    let after = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let all = |usage: nix::sys::resource::Usage| seconds(usage.user_time()) + seconds(usage.system_time());
    Ok((wall, all(after) - all(before)))
}

/// What people who ask do to the acknowledgement's p99.
fn users(target: &Target, url: &str, token: &str) -> anyhow::Result<Value> {
    let steps = (PACE_PER_S * WATCHED.as_secs_f64()) as usize / 10_000;
    let bodies = Bodies::build(10_000, steps, steps, false);
    let p99 = |requests: &[Vec<u8>]| {
        let (mut latencies, errors) = load(target, &bodies, requests, Some(PACE_PER_S))?;
        ensure!(errors == 0, "{errors} requests failed");
        latencies.sort_unstable_by(f64::total_cmp);
        anyhow::Ok(latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(f64::NAN))
    };
    let alone = p99(&bodies.saturated)?;
    let (stop, answers, stopped) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let wrong = Mutex::new(None);
    let beside = std::thread::scope(|scope| {
        for person in 0..PEOPLE {
            let (stop, answers, stopped, wrong) = (&stop, &answers, &stopped, &wrong);
            scope.spawn(move || {
                let query = format!(
                    "SELECT severity, count(*) FROM logs WHERE template_id <> '{person}' AND day = DATE '2026-11-23' GROUP BY 1"
                );
                while !stop.load(Ordering::Acquire) {
                    let question = ureq::post(url).header("Authorization", token).header("Content-Type", "text/plain");
                    let question = question.config().http_status_as_error(false).build();
                    let answer = question.send(&query).and_then(|mut answer| {
                        let text = answer.body_mut().read_to_string()?;
                        Ok((answer.status().as_u16(), text))
                    });
                    match answer {
                        Ok((200, _)) => answers.fetch_add(1, Ordering::Relaxed),
                        // Stopped for its time or its memory.
                        Ok((503, text)) if stopped.fetch_add(1, Ordering::Relaxed) == 0 => {
                            tell(text);
                            0
                        }
                        Ok((503, _)) => 0,
                        other => {
                            *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{other:?}"));
                            break;
                        }
                    };
                }
            });
        }
        let beside = p99(&bodies.paced);
        stop.store(true, Ordering::Release);
        beside
    })?;
    if let Some(answer) = wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
        anyhow::bail!("a question was not answered: {answer}");
    }
    let (answers, stopped) = (answers.into_inner(), stopped.into_inner());
    ensure!(answers > 0, "nobody got an answer, {stopped} questions were stopped");
    Ok(json!({ "ack_p99_ms_alone": alone, "ack_p99_ms_beside": beside, "ratio": beside / alone, "answers": answers,
        "stopped": stopped }))
}

fn cold() {
    nix::unistd::sync();
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        tell("the page cache cannot be dropped here; the figure is warm");
    }
}

#[expect(clippy::disallowed_methods, reason = "peers are programs of their own")]
fn program(variable: &str) -> Command {
    let mut command = Command::new(server::program(variable));
    command.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    command
}
