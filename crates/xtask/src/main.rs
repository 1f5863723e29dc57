//! The only door: `cargo xtask <command>` does everything a developer or a newcomer needs.
//!
//! `demo` and `test` are promised to work on a fresh Debian machine with Rust and Node; the others are
//! `check` (format, lints, tidy, dependencies, docs), `tidy`, `gen`, `bench`, `torture` and `mutants`.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod check;
mod clients;
mod debian;
mod demo;
mod generate;
mod mutants;
mod seeds;
mod story;
mod test;
mod tidy;
mod world;

use std::process::ExitCode;

use lexopt::prelude::{Long, Value, ValueExt};

const HELP: &str = "\
cargo xtask <command>

  demo      watch a real service break, and Wardroom notice, explain, ask, repair and prove it
            [--seed N] [--headless] [--fault F --service S] [--names-seed M] [--otlp] [--port P] [--keep DIR]
            [--seeds 1..30 --jobs 2 --out docs/demo.md] [--shop-args '…']
  test      every test: unit, contract, scenario against real servers   [--yes] [--strict]
  check     format, lints, tidy, dependencies, docs   [--ci]
  tidy      the house rules of CONTRIBUTING.md        [--bless]
  gen       references made from code                 [--check]
  bench     intake: CPU, memory and latency beside VictoriaMetrics and Prometheus, release build
            [--series 10000,100000] [--repeat 3] [--samples N] [--targets wardroom,…] [--churn] [--check]
            [--json FILE] [--flame FILE.svg]; or otlp, beside the rotel collector; or start, from a gigabyte of bus
  torture   crash tests and their like: --bar 1a|1b|1e|1f|2b|2d|4a|4b|4c|5a|5e|7e|7f|9a|loop [--kills N]
            [--mutant NAME --runs 20] [--seed S] [--json FILE]
  mutants   bends approval and audit, function by function: the tests must notice nine of ten
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("xtask: {error:#}");
            ExitCode::from(4)
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut arguments = lexopt::Parser::from_env();
    let command = match arguments.next()? {
        Some(Value(command)) => command.string()?,
        Some(Long("help")) | None => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "demo" => demo::run(demo::Options::parse(arguments)?),
        "test" => test::run(arguments),
        "check" => check::run(arguments),
        "tidy" => tidy::run(arguments),
        "gen" => generate::run(arguments),
        "bench" => bench::run(arguments),
        "torture" => test::torture(arguments),
        "mutants" => mutants::run(arguments),
        "help" => {
            anstream::print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        other => anyhow::bail!("no command is called {other:?}; `cargo xtask help` lists them"),
    }
}
