//! Evaluates the shipped binary from outside its process.
//!
//! - `torture --bar NAME`: crash and fault tests; an oracle records what was acknowledged and compares it with what is
//!   read back. The bars are listed in [`torture`].
//! - `bench intake|read|start|otlp|hostile-queries`: benchmarks, next to other products where there are any.
//! - `eval rca|tape|synthetic`: the product's own judgement on public fault data, on recorded requests and on estates
//!   made from names of public instrumentations.
//! - `shadow`: the agreement table of shadow mode, from the demo's reports.

#![forbid(unsafe_code)]

mod bar;
mod bench;
mod child_process;
mod client_python;
mod eval;
mod oracle;
mod progress;
mod server_metrics;
mod shadow;
mod torture;

use std::process::ExitCode;

use lexopt::prelude::Value;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) if command == "torture" => torture::run(arguments),
        Some(Value(command)) if command == "bench" => bench::run(arguments).map(|()| ExitCode::SUCCESS),
        Some(Value(command)) if command == "eval" => eval::run(arguments).map(|()| ExitCode::SUCCESS),
        Some(Value(command)) if command == "shadow" => shadow::run(arguments).map(|()| ExitCode::SUCCESS),
        Some(Value(command)) if command == torture::LAKE_WRITER_COMMAND => {
            torture::run_lake_writer(arguments).map(|()| ExitCode::SUCCESS)
        }
        Some(Value(command)) if command == torture::EFFECT_WORKER_COMMAND => {
            torture::run_effect_worker(arguments).map(|()| ExitCode::SUCCESS)
        }
        Some(Value(command)) if command == torture::AUDIT_VERDICTS_COMMAND => {
            torture::print_verdicts(arguments).map(|()| ExitCode::SUCCESS)
        }
        Some(other) => Err(other.unexpected().into()),
        None => {
            anyhow::bail!(
                "usage: wardroom-evals torture --bar NAME | bench intake|read|start|otlp|hostile-queries | eval rca|tape|synthetic | shadow"
            )
        }
    }
}
