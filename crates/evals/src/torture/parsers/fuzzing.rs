//! Mutates valid inputs and feeds them to every parser of bytes from outside. Nothing may panic or take more than a
//! second of CPU, and the process must stay below 512 MiB.
//!
//! The corpus is recorded requests and the fixtures of bar 1a. proptest mutates them and shrinks what fails; compressed
//! formats are mutated both as sent and inside their compression. `--kills` is the seconds that each target gets.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, TestCaseError, TestRunner};

use super::fuzz_target::{FuzzTarget, read_files};
use super::{request_targets, source_targets, state_targets, text_targets};
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// Maximum CPU time for one input. CPU time, so that other load on the machine does not count.
const MAX_INPUT_CPU_TIME: Duration = Duration::from_secs(1);
/// Maximum wall time for one input, for parsers that block.
const MAX_INPUT_WALL_TIME: Duration = Duration::from_secs(10);
/// Peak memory of this process, in KiB.
const MAX_RSS_KIB: f64 = 512.0 * 1024.0;
/// Targets that run at the same time.
const WORKERS: usize = 2;
/// Inputs between two reads of the clock.
const INPUTS_PER_ROUND: u32 = 200;
/// Maximum number of edits of one input.
const MAX_EDITS: usize = 12;

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let seconds = options.kills.max(1);
    let mut targets = targets()?;
    let mut result = BarResult::default();
    print_progress(format!("{} targets, {seconds} s each", targets.len()));
    // proptest catches and shrinks panics; their messages come with the result.
    std::panic::set_hook(Box::new(|_| {}));
    while !targets.is_empty() {
        let batch = targets.split_off(targets.len().saturating_sub(WORKERS));
        let outcomes = std::thread::scope(|scope| {
            let workers: Vec<_> = batch
                .into_iter()
                .map(|target| scope.spawn(move || (target.name, fuzz(&target, Duration::from_secs(seconds)))))
                .collect();
            workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for outcome in outcomes {
            let (name, (inputs, fault)) = outcome.map_err(|_| anyhow::anyhow!("a target's thread panicked"))?;
            print_progress(format!("{name}: {inputs} inputs"));
            (result.issued, result.acked) = (result.issued + inputs, result.acked + inputs);
            result.faults.extend(fault.map(|fault| format!("{name}: {fault}")));
        }
        let rss_kib = peak_rss_kib()?;
        if rss_kib > MAX_RSS_KIB {
            result.faults.push(format!("the process took {:.0} MiB", rss_kib / 1024.0));
        }
    }
    drop(std::panic::take_hook());
    result.kills = seconds;
    Ok(result)
}

fn peak_rss_kib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn targets() -> anyhow::Result<Vec<FuzzTarget>> {
    let mut all = source_targets::targets()?;
    all.extend(state_targets::storage_targets()?);
    all.extend(state_targets::checkpoint_targets()?);
    all.extend(text_targets::targets());
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sources/tests/it/captures/otlp");
    let metrics = read_files(&captures, |name| name.contains("metrics") && name.ends_with(".pb"))?;
    all.extend(request_targets::targets(&metrics)?);
    Ok(all)
}

/// Mutates seeds until the time is up; returns the number of inputs and the failure.
fn fuzz(target: &FuzzTarget, time: Duration) -> (u64, Option<String>) {
    let (started, mut inputs) = (Instant::now(), 0);
    let seeds = Arc::new(target.seeds.clone());
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0_u8..6, any::<u8>());
    let edits = prop::collection::vec(edit, 0..MAX_EDITS);
    let strategy = (0..seeds.len(), edits, any::<prop::sample::Index>());
    while started.elapsed() < time {
        let mut runner = TestRunner::new(RunnerConfig {
            cases: INPUTS_PER_ROUND,
            failure_persistence: None,
            ..RunnerConfig::default()
        });
        let outcome = runner.run(&strategy, |(seed, edits, other)| {
            let bytes = mutate(&seeds[seed], &edits, &seeds[other.index(seeds.len())]);
            let (parse_started, cpu_before) = (Instant::now(), thread_cpu_time());
            (target.parse)(&bytes);
            let (wall, cpu) = (parse_started.elapsed(), thread_cpu_time().saturating_sub(cpu_before));
            if cpu > MAX_INPUT_CPU_TIME || wall > MAX_INPUT_WALL_TIME {
                return Err(TestCaseError::fail(format!("{cpu:?} CPU, {wall:?} for {} bytes", bytes.len())));
            }
            Ok(())
        });
        inputs += u64::from(INPUTS_PER_ROUND);
        if let Err(error) = outcome {
            return (inputs, Some(error.to_string()));
        }
    }
    (inputs, None)
}

/// Returns the CPU time of this thread; zero if the clock cannot be read.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Position, byte, kind of edit, length.
type Edit = (prop::sample::Index, u8, u8, u8);

/// Inserts, replaces, flips, truncates, removes, and copies from another seed.
fn mutate(seed: &[u8], edits: &[Edit], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (position, value, kind, length) in edits {
        let start = position.index(bytes.len() + 1);
        let end = (start + usize::from(*length)).min(bytes.len());
        match kind {
            0 => bytes.insert(start, *value),
            1 if start < bytes.len() => bytes[start] = *value,
            2 if start < bytes.len() => bytes[start] ^= 1 << (value % 8),
            3 => bytes.truncate(start),
            4 => drop(bytes.drain(start..end)),
            _ => {
                let from = position.index(other.len() + 1);
                let slice = other[from..(from + usize::from(*length)).min(other.len())].to_vec();
                bytes.splice(start..start, slice);
            }
        }
    }
    bytes
}
