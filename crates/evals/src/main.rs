//! Proofs from outside the process under test: crash tests with an oracle, and benchmarks beside peers.
//!
//! `1a`: what a remote_write receiver must understand, read back.
//! `1b`: acknowledgements under load, killed at random moments; what was acknowledged must be there.
//! `1e`: a real Prometheus behind refusals and kills. `2b`: a record that panics its handler. `2d`: detection
//! stands still. `4a`: the power goes.
//! `5a`: two writers of one lake. `5e`: the lake on object stores.
//! `1f`, `4b`: a disk that is full, fails or stalls. `4c`: a log with turned bits and cut ends.
//! `7e`, `7f`: bombs, and a tenant far over its limits.
//! `loop`: the whole response driven by a tape, killed at every persisted transition and every call of an
//! adapter; effects are counted by the target.

#![forbid(unsafe_code)]

mod ack;
mod bench;
mod cycle;
mod disk;
mod events;
mod flips;
mod flood;
mod fuzz;
mod poison;
mod power;
mod receiver;
mod sender;
mod silver;
mod stall;
mod stores;
mod strace;
mod writers;

use std::process::ExitCode;

use anyhow::Context;
use lexopt::prelude::{Long, Value, ValueExt};
use serde_json::json;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) issued: u64,
    pub(crate) acked: u64,
    pub(crate) missing: u64,
    pub(crate) spurious: u64,
    pub(crate) corrupted: u64,
    pub(crate) duplicate: u64,
    /// Kills that hit.
    pub(crate) kills: u64,
    /// Points that were aimed at, one kill each.
    pub(crate) points: u64,
    /// What was acknowledged in a second, on average.
    pub(crate) samples_per_s: f64,
    /// What else went wrong, in words.
    pub(crate) faults: Vec<String>,
}

impl Tally {
    pub(crate) fn clean(&self) -> bool {
        self.missing + self.spurious + self.corrupted + self.duplicate == 0 && self.faults.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.issued += other.issued;
        self.acked += other.acked;
        self.missing += other.missing;
        self.spurious += other.spurious;
        self.corrupted += other.corrupted;
        self.duplicate += other.duplicate;
        self.kills += other.kills;
        self.points = self.points.max(other.points);
        self.samples_per_s = self.samples_per_s.max(other.samples_per_s);
        self.faults.extend(other.faults);
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) kills: u64,
    pub(crate) seed: u64,
    pub(crate) mutant: Option<String>,
}

/// One line for whoever watches.
#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
pub(crate) fn tell(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = lexopt::Parser::from_env();
    let (mut bar, mut runs, mut file) = (String::new(), 1_u64, None);
    let mut options = Options { kills: 60, seed: 1, mutant: None };
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(word) if word == "torture" => {}
            Value(word) if word == "bench" => {
                bench::run(arguments)?;
                return Ok(ExitCode::SUCCESS);
            }
            Value(word) if word == "lake-writer" => {
                writers::write(arguments)?;
                return Ok(ExitCode::SUCCESS);
            }
            Long("bar") => bar = arguments.value()?.string()?,
            Long("kills") => options.kills = arguments.value()?.parse()?,
            Long("seed") => options.seed = arguments.value()?.parse()?,
            Long("runs") => runs = arguments.value()?.parse()?,
            Long("mutant") => options.mutant = Some(arguments.value()?.string()?),
            Long("json") => file = Some(std::path::PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    let (mut total, mut caught) = (Tally::default(), 0);
    for run in 0..runs {
        let options = Options { seed: options.seed + run, ..options.clone() };
        let tally = match bar.as_str() {
            "1a" => receiver::run(&options),
            "1b" => ack::run(&options),
            "1e" => sender::run(&options),
            "1f" => disk::full(&options),
            "2b" => poison::run(&options),
            "2d" => stall::run(&options),
            "4a" => power::run(&options),
            "4b" => disk::faults(&options),
            "4c" => flips::run(&options),
            "5a" => writers::run(&options),
            "5e" => stores::run(&options),
            "7e" => flood::explode(&options),
            "7f" => flood::crowd(&options),
            "9a" => fuzz::run(&options),
            "loop" => cycle::run(&options),
            other => {
                anyhow::bail!(
                    "no bar is called {other:?}; there are 1a, 1b, 1e, 1f, 2b, 2d, 4a, 4b, 4c, 5a, 5e, 7e, 7f, 9a and loop"
                )
            }
        };
        let tally = tally.with_context(|| format!("run {run} of bar {bar}"))?;
        caught += u64::from(!tally.clean());
        for fault in &tally.faults {
            tell(format!("fault: {fault}"));
        }
        total.add(tally);
    }
    let trials = if bar == "loop" { total.kills.max(1) } else { total.acked.max(1) };
    let report = json!({ "bar": bar, "mutant": options.mutant, "runs": runs, "caught": caught, "kills": total.kills,
        "seed": options.seed, "issued": total.issued, "acked": total.acked, "missing": total.missing,
        "spurious": total.spurious, "corrupted": total.corrupted, "duplicate": total.duplicate,
        "faults": total.faults.len(), "points": total.points,
        "samples_per_s": total.samples_per_s.round(), "bound": 3.0 / trials as f64 });
    tell(&report);
    if let Some(file) = file {
        std::fs::write(file, report.to_string())?;
    }
    let good = match options.mutant {
        Some(_) => caught * 20 >= runs * 19,
        None => caught == 0,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
