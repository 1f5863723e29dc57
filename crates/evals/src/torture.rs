//! `torture`: runs a bar (a crash or fault test) one or more times and reports the totals.
//!
//! | bar | shows |
//! |---|---|
//! | 1a | remote_write requests are accepted or refused as specified, and read back |
//! | 1b | acknowledged data survives kills at random moments |
//! | 1e | a real Prometheus loses nothing across refusals and kills |
//! | 1f | a full disk |
//! | 2b | a record that panics its handler is dead-lettered and can be replayed |
//! | 2d | a stalled detector neither grows memory nor loses data |
//! | 3a | the whole incident response on PostgreSQL, killed at every persisted transition of incidents and effects |
//! | 3b | server and executor killed at system calls between an approval and the end of its incident |
//! | 3d | 64 approvals of one plan at once, on PostgreSQL: one execution; two workers that compete for effects |
//! | 3e | an approval is good for the plan that was signed, and for nothing else |
//! | 3g | incidents that an earlier version has begun are ended by this one |
//! | 3h | a target that does not answer holds up nothing but itself; approvals, stops and waiting incidents are timed |
//! | 4a | acknowledged data survives power loss |
//! | 4b | a failing or stalling disk |
//! | 4c | a bus with flipped bits and truncated segments |
//! | 5a | two writers of one lake |
//! | 5e | the lake on object stores |
//! | 6h | the executor does nothing that its own policy forbids |
//! | 7e | hostile request bodies |
//! | 7f | a tenant far over its limits |
//! | 7g | secrets that are planted everywhere are in nothing that the product writes or shows |
//! | 7h | every alteration of the audit log is found, by two verifiers without shared code (7i) |
//! | 9a | every parser of outside bytes, fuzzed |
//! | loop | the whole incident response, killed at every persisted transition and adapter call |

mod approval_race;
mod audit_log;
mod authority;
mod canaries;
mod competing_workers;
mod detection;
mod durability;
mod executor_socket;
mod hanging_target;
mod incident_loop;
mod lake;
mod limits;
mod mutants;
mod parsers;
mod protocols;
mod strace;
mod syscall_kills;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lexopt::prelude::{Long, ValueExt};
use serde_json::json;

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

pub(crate) use audit_log::{AUDIT_VERDICTS_COMMAND, print_verdicts};
pub(crate) use competing_workers::{EFFECT_WORKER_COMMAND, run_worker as run_effect_worker};
pub(crate) use lake::competing_writers::{LAKE_WRITER_COMMAND, run_writer as run_lake_writer};

type Bar = fn(&BarOptions) -> anyhow::Result<BarResult>;

/// All bars by name.
const BARS: [(&str, Bar); 24] = [
    ("1a", protocols::receiver_conformance::run),
    ("1b", durability::server_kills::run),
    ("1e", protocols::prometheus_sender::run),
    ("1f", durability::full_disk::run),
    ("2b", detection::poison_record::run),
    ("2d", detection::stalled_detector::run),
    ("3a", incident_loop::run_on_postgres),
    ("3b", syscall_kills::run),
    ("3d", approval_race::run),
    ("3e", authority::bound_proofs::run),
    ("3g", upgrade::run),
    ("3h", hanging_target::run),
    ("4a", durability::power_loss::run),
    ("4b", durability::failing_disk::run),
    ("4c", durability::corrupt_bus::run),
    ("5a", lake::competing_writers::run),
    ("5e", lake::object_stores::run),
    ("6h", authority::policy_in_force::run),
    ("7e", limits::hostile_bodies::run),
    ("7f", limits::tenant_limits::run),
    ("7g", canaries::run),
    ("7h", audit_log::run),
    ("9a", parsers::fuzzing::run),
    ("loop", incident_loop::run),
];

/// Share of runs in which a mutant must be caught.
const MIN_CAUGHT_SHARE: f64 = 0.95;

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let (mut name, mut runs, mut json_file) = (String::new(), 1_u64, None);
    let (mut kills, mut options) = (None, BarOptions { kills: 60, seed: 1, mutant: None });
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("bar") => name = arguments.value()?.string()?,
            Long("kills") => kills = Some(arguments.value()?.parse()?),
            Long("seed") => options.seed = arguments.value()?.parse()?,
            Long("runs") => runs = arguments.value()?.parse()?,
            Long("mutant") => options.mutant = Some(arguments.value()?.string()?),
            Long("json") => json_file = Some(PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    let bar = BARS.iter().find(|(known, _)| *known == name).map(|(_, bar)| bar);
    let bar = bar.with_context(|| format!("unknown bar {name:?}; known: {}", BARS.map(|(name, _)| name).join(", ")))?;
    let known = options.mutant.as_ref().map(|mutant| mutants::find(mutant, &name)).transpose()?;
    options.kills = kills.or(known.map(|mutant| mutant.kills)).unwrap_or(options.kills);
    let (mut total, mut caught) = (BarResult::default(), 0);
    for run in 0..runs {
        let options = BarOptions { seed: options.seed + run, ..options.clone() };
        let result = bar(&options).with_context(|| format!("run {run} of bar {name}"))?;
        caught += u64::from(!result.is_clean());
        for fault in &result.faults {
            print_progress(format!("fault: {fault}"));
        }
        total.add(result);
    }
    let trials = if ["loop", "3a"].contains(&name.as_str()) { total.kills.max(1) } else { total.acked.max(1) };
    let report = json!({ "bar": name, "mutant": options.mutant, "runs": runs, "caught": caught, "kills": total.kills,
        "seed": options.seed, "issued": total.issued, "acked": total.acked, "missing": total.missing,
        "spurious": total.spurious, "corrupted": total.corrupted, "duplicate": total.duplicate,
        "faults": total.faults.len(), "points": total.points, "figures": total.figures,
        "samples_per_s": total.samples_per_s.round(), "bound": 3.0 / trials as f64 });
    print_progress(&report);
    if let Some(file) = json_file {
        std::fs::write(file, report.to_string())?;
    }
    let passed = match options.mutant {
        Some(_) => caught as f64 >= runs as f64 * MIN_CAUGHT_SHARE,
        None => caught == 0,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
