//! Bar 5a: two writers of one lake are killed repeatedly; every row is there once.
//!
//! This simulates a lease that flaps: both writers believe that they hold it. Each continues at the offset where it
//! last saw the lake end, with batches of its own lengths, gets a conflict when the other was faster, and reads the
//! committed offset again. Row `n` is a function of `n`, so that an independent reader (DuckDB, and the files of the
//! Delta log) can tell which rows are missing or duplicate.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use wardroom_domain::{Entity, Labels, Sample, TenantId, Timestamp};
use wardroom_lake::{Config, Error, Flush, Lake, NewSeries};

use crate::bar::{BarOptions, BarResult};
use crate::child_process::ChildProcess;
use crate::client_python::python;
use crate::progress::print_progress;

/// Hidden subcommand that runs one writer until it is killed.
pub(crate) const LAKE_WRITER_COMMAND: &str = "lake-writer";
/// Series that the rows are distributed over, round robin.
const SERIES: u64 = 5;
/// Timestamp of row 0.
const BASE_MS: i64 = 1_767_225_600_000;
/// Step from one row to the next, large enough that batches are merged after a few hundred rows.
const STEP_MS: i64 = 60_000;
/// A writer runs maintenance every this many batches.
const MAINTENANCE_INTERVAL_BATCHES: u64 = 20;
/// Maximum number of rows of a batch.
const MAX_BATCH_ROWS: u64 = 50;

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("5a")?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut writers = Vec::new();
    for seed in 0..2 {
        writers.push(start_writer(&dir, options.seed * 1_000_000 + seed, options)?);
    }
    let (mut faults, mut caught) = (Vec::new(), None);
    for kill in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
        let victim = random.random_range(0..2);
        let writer = &mut writers[victim];
        if let Some(status) = writer.try_wait()? {
            faults.push(format!("a writer exited: {status}"));
        }
        writer.kill()?;
        writer.wait()?;
        writers[victim] = start_writer(&dir, options.seed * 1_000_000 + kill * 2 + victim as u64, options)?;
        if kill % 20 == 0 {
            print_progress(format!("{kill} kills"));
            if options.mutant.is_some() {
                caught = Some(check_lake(&dir)?).filter(|result| !result.is_clean());
            }
        }
        if caught.is_some() || !faults.is_empty() {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    for writer in &mut writers {
        writer.kill()?;
        writer.wait()?;
    }
    let mut result = caught.map_or_else(|| check_lake(&dir), Ok)?;
    result.kills = options.kills;
    result.faults.extend(faults);
    // A mutant may have reset the committed offset to almost nothing.
    ensure!(!result.is_clean() || result.acked > options.kills, "{} rows are too few for a result", result.acked);
    if result.is_clean() || options.mutant.is_some() {
        std::fs::remove_dir_all(&dir)?;
    } else {
        print_progress(format!("the data is kept in {}", dir.display()));
    }
    Ok(result)
}

#[expect(clippy::disallowed_methods, reason = "the bar starts the processes that it kills")]
fn start_writer(dir: &Path, seed: u64, options: &BarOptions) -> anyhow::Result<ChildProcess> {
    let mut writer = Command::new(std::env::current_exe()?);
    writer.arg(LAKE_WRITER_COMMAND).arg("--dir").arg(dir).args(["--seed", &seed.to_string()]);
    writer.env("WARDROOM_MUTANT", options.mutant_name());
    Ok(writer.stdout(Stdio::null()).spawn().context("cannot start a writer")?.into())
}

/// Checks that the table holds each row from 0 up to the committed offset once.
fn check_lake(dir: &Path) -> anyhow::Result<BarResult> {
    #[derive(Deserialize)]
    struct Output {
        rows: u64,
        distinct: u64,
        min_row: Option<u64>,
        max_row: Option<u64>,
        corrupted: u64,
        series: u64,
        /// Offset of each commit by a writer, in the order of the log.
        transactions: Vec<u64>,
    }
    let output = python().args(["-c", include_str!("competing_writers.py")]).arg(dir.join("lake")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let found: Output = serde_json::from_slice(&output.stdout)?;
    let end = found.transactions.last().copied().unwrap_or_default();
    let mut result = BarResult { issued: end, acked: end, ..BarResult::default() };
    result.duplicate = found.rows - found.distinct;
    result.missing = end.saturating_sub(found.distinct);
    result.spurious = found.max_row.map_or(0, |max_row| (max_row + 1).saturating_sub(end));
    result.corrupted = found.corrupted + found.min_row.unwrap_or_default();
    if found.transactions.windows(2).any(|pair| pair[1] <= pair[0]) {
        result.faults.push("the committed offset went back".to_owned());
    }
    if found.series != SERIES.min(end) {
        result.faults.push(format!("{} rows in silver.series instead of {SERIES}", found.series));
    }
    print_progress(format!(
        "{} rows, committed offset {end}, {} commits: {} duplicate, {} missing",
        found.rows,
        found.transactions.len(),
        result.duplicate,
        result.missing
    ));
    Ok(result)
}

/// Runs one writer until it is killed.
pub(crate) fn run_writer(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut dir, mut seed) = (PathBuf::new(), 0);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("dir") => dir = arguments.value()?.into(),
            Long("seed") => seed = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(write_batches(&dir, StdRng::seed_from_u64(seed)))
}

async fn write_batches(dir: &Path, mut random: StdRng) -> anyhow::Result<()> {
    let tenant = TenantId::main();
    let lake = Lake::open(&Config::default(), dir).await?;
    let mut next = lake.committed_offset().await?.unwrap_or_default();
    let mut known = lake.known_series(None).await?.remove(&tenant).map_or(0, |(highest, _)| highest);
    for batch in 1_u64.. {
        let end = next + random.random_range(1..=MAX_BATCH_ROWS);
        let mut flush = Flush::new(end);
        let mut new = Vec::new();
        for series in 0..SERIES {
            let rows: Vec<_> = (next..end)
                .filter(|row| row % SERIES == series)
                .map(|row| Sample { ts_ms: BASE_MS + row as i64 * STEP_MS, value: row as f64 })
                .collect();
            let id = series as i64 + 1;
            if let Some(first) = rows.first().filter(|_| id > known) {
                let labels = Labels::of(&[("__name__", "row"), ("series", &series.to_string())]);
                let entity = Entity::default();
                new.push(NewSeries { tenant: tenant.clone(), id, labels, entity, first_ms: first.ts_ms });
            }
            flush.push(&tenant, id, &rows)?;
        }
        let new_known = new.last().map_or(known, |series| series.id);
        match lake.flush(flush, &new, Timestamp::from_millis(BASE_MS)).await {
            Ok(_) => (next, known) = (end, new_known),
            // The other writer was faster.
            Err(Error::OffsetConflict { .. }) => {
                next = lake.committed_offset().await?.unwrap_or_default();
                known = lake.known_series(None).await?.remove(&tenant).map_or(0, |(highest, _)| highest);
            }
            Err(error) => print_progress(format!("writer: {error}")),
        }
        // Both run maintenance as well; a conflict there is resolved by doing nothing.
        if batch.is_multiple_of(MAINTENANCE_INTERVAL_BATCHES)
            && let Err(error) = lake.maintain(None).await
        {
            print_progress(format!("writer: {error}"));
        }
    }
    Ok(())
}
