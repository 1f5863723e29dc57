//! Bar 5a: two writers of one lake, killed again and again; each row is there once.
//!
//! A lease that flaps: both believe all the time that it is theirs. Each goes on where he thinks the tables end, with batches of
//! his own lengths, learns that he was overtaken, and asks again. Row `n` is a function of `n`, so a reader from outside
//! (DuckDB, and the log's own files) can tell which rows are missing or there twice.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use wardroom_domain::{Labels, Sample, TenantId, Timestamp};
use wardroom_lake::{Config, Error, Flush, Lake, NewSeries};

use crate::silver::python;
use crate::{Options, Tally, tell};

/// Series that the rows lie in, in turn.
const SERIES: u64 = 5;
/// Time of row 0.
const BASE_MS: i64 = 1_767_225_600_000;
/// From one row to the next: batches are merged after a few hundred.
const STEP_MS: i64 = 60_000;
/// Rows of a batch at most.
const BATCH: u64 = 50;

/// Runs the bar.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-5a-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut writers = Vec::new();
    for seed in 0..2 {
        writers.push(start(&dir, options.seed * 1_000_000 + seed, options)?);
    }
    let (mut faults, mut caught) = (Vec::new(), None);
    for kill in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
        let victim = random.random_range(0..2);
        let writer: &mut Child = &mut writers[victim];
        if let Some(status) = writer.try_wait()? {
            faults.push(format!("a writer ended by itself: {status}"));
        }
        writer.kill()?;
        writer.wait()?;
        writers[victim] = start(&dir, options.seed * 1_000_000 + kill * 2 + victim as u64, options)?;
        if kill % 20 == 0 {
            tell(format!("{kill} kills"));
            if options.mutant.is_some() {
                caught = Some(judge(&dir)?).filter(|tally| !tally.clean());
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
    let mut tally = caught.map_or_else(|| judge(&dir), Ok)?;
    tally.kills = options.kills;
    tally.faults.extend(faults);
    // A fault that was caught may have thrown the record back to next to nothing.
    ensure!(
        !tally.clean() || tally.acked > options.kills,
        "{} rows are too few for the bar to mean anything",
        tally.acked
    );
    if tally.clean() || options.mutant.is_some() {
        std::fs::remove_dir_all(&dir)?;
    } else {
        tell(format!("what they left is in {}", dir.display()));
    }
    Ok(tally)
}

#[expect(clippy::disallowed_methods, reason = "the nemesis starts what it kills")]
fn start(dir: &Path, seed: u64, options: &Options) -> anyhow::Result<Child> {
    let mut writer = Command::new(std::env::current_exe()?);
    writer.arg("lake-writer").arg("--dir").arg(dir).args(["--seed", &seed.to_string()]);
    writer.env("WARDROOM_MUTANT", options.mutant.as_deref().unwrap_or_default());
    writer.stdout(Stdio::null()).spawn().context("start a writer")
}

/// Compares what is in the table with what has to be there: row 0 up to the offset on record, each once.
fn judge(dir: &Path) -> anyhow::Result<Tally> {
    #[derive(Deserialize)]
    struct Printed {
        rows: u64,
        distinct: u64,
        least: Option<u64>,
        most: Option<u64>,
        wrong: u64,
        series: u64,
        /// Of every commit, in order, that has one.
        transactions: Vec<u64>,
    }
    let output = python().args(["-c", include_str!("writers.py")]).arg(dir.join("lake")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let found: Printed = serde_json::from_slice(&output.stdout)?;
    let end = found.transactions.last().copied().unwrap_or_default();
    let mut tally = Tally { issued: end, acked: end, ..Tally::default() };
    tally.duplicate = found.rows - found.distinct;
    tally.missing = end.saturating_sub(found.distinct);
    tally.spurious = found.most.map_or(0, |most| (most + 1).saturating_sub(end));
    tally.corrupted = found.wrong + found.least.unwrap_or_default();
    if found.transactions.windows(2).any(|pair| pair[1] <= pair[0]) {
        tally.faults.push("the offset on record went back".to_owned());
    }
    if found.series != SERIES.min(end) {
        tally.faults.push(format!("{} label sets instead of {SERIES}", found.series));
    }
    tell(format!(
        "{} rows up to {end} in {} commits: {} twice, {} missing",
        found.rows,
        found.transactions.len(),
        tally.duplicate,
        tally.missing
    ));
    Ok(tally)
}

/// A writer that goes on until it is killed.
pub(crate) fn write(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut dir, mut seed) = (PathBuf::new(), 0);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("dir") => dir = arguments.value()?.into(),
            Long("seed") => seed = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(go_on(&dir, StdRng::seed_from_u64(seed)))
}

async fn go_on(dir: &Path, mut random: StdRng) -> anyhow::Result<()> {
    let tenant = TenantId::main();
    let lake = Lake::open(&Config::default(), dir).await?;
    let mut next = lake.reached().await?.unwrap_or_default();
    let mut known = lake.series(None).await?.remove(&tenant).map_or(0, |(highest, _)| highest);
    for turn in 1_u64.. {
        let end = next + random.random_range(1..=BATCH);
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
                new.push(NewSeries { tenant: tenant.clone(), id, labels, first_ms: first.ts_ms });
            }
            flush.push(&tenant, id, &rows)?;
        }
        let newest = new.last().map_or(known, |series| series.id);
        match lake.flush(flush, &new, Timestamp::from_millis(BASE_MS)).await {
            Ok(_) => (next, known) = (end, newest),
            // Somebody else has the lease, or had it.
            Err(Error::Overtaken { .. }) => {
                next = lake.reached().await?.unwrap_or_default();
                known = lake.series(None).await?.remove(&tenant).map_or(0, |(highest, _)| highest);
            }
            Err(error) => tell(format!("writer: {error}")),
        }
        // Both look after the tables, too; who is too late does nothing.
        if turn.is_multiple_of(20)
            && let Err(error) = lake.maintain(None).await
        {
            tell(format!("writer: {error}"));
        }
    }
    Ok(())
}
