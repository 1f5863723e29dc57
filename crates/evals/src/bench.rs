//! `bench`: benchmarks of release builds.

mod cpu_profile;
mod hostile_queries;
mod intake;
mod intake_report;
mod lake_files;
mod live_streams;
mod load;
mod otlp;
pub(crate) mod process_usage;
mod read;
mod read_back;
mod remote_write_bodies;
mod run_environment;
mod start;
pub(crate) mod statistics;
mod surroundings;
mod target;

use lexopt::prelude::Value;

/// Runs the benchmark named by the next argument.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    match arguments.next()? {
        Some(Value(name)) if name == "intake" => intake::run(arguments),
        Some(Value(name)) if name == "otlp" => otlp::run(arguments),
        Some(Value(name)) if name == "hostile-queries" => hostile_queries::run(arguments),
        Some(Value(name)) if name == "live-streams" => live_streams::run(arguments),
        Some(Value(name)) if name == "read" => read::run(arguments),
        Some(Value(name)) if name == "start" => start::run(arguments),
        Some(other) => Err(other.unexpected().into()),
        None => anyhow::bail!("usage: bench intake|read|start|otlp|hostile-queries|live-streams"),
    }
}
