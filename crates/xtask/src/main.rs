//! `cargo xtask <command>`: every command that a developer needs. CI runs `check --ci` and `test`.
//!
//! `demo` and `test` work on a fresh Debian machine with Rust and Node.

#![forbid(unsafe_code)]

mod api_tests;
mod api_tools;
mod bench;
mod browser_tests;
mod check;
mod client_programs;
mod debian_packages;
mod demo;
mod dist;
mod eval;
mod generate;
mod kubernetes_tests;
mod mutation_tests;
mod pinned_packages;
mod programs;
mod servers;
mod steps;
mod test;
mod tidy;
mod tool_counterparts;
mod torture;
mod workspace;

use std::process::ExitCode;

use lexopt::prelude::{Long, Value, ValueExt};

const HELP: &str = "\
cargo xtask <command>

  demo      runs a small shop, injects a fault, and shows how Wardroom detects, explains and repairs it
            [--seed N] [--headless] [--fault F --service S] [--names-seed M] [--otlp] [--port P] [--keep DIR]
            [--seeds 1..30 --jobs 2 --out docs/demo.md --reports DIR] [--shop-args '…']
  test      all tests: unit, contract, scenarios with real servers, demo seeds, crash tests   [--yes] [--strict]
  test-kubernetes   lints and tests of the tool `kubernetes`, in a build of its own
  test-api  the API against its OpenAPI document: schemathesis, generated clients in TypeScript and Python   [--long]
  test-browser   logins and approvals in a real Chromium   (CHROMIUM_BIN)
  check     format, tidy, lints, docs, generated references, dependencies   [--ci]
  tidy      rules for the source that a program can check, see CONTRIBUTING.md   [--bless]
  gen       generates docs/reference from the code   [--check]
  bench     benchmarks a release build: intake (CPU, memory and latency beside VictoriaMetrics and Prometheus),
            otlp (beside rotel), read (beside DuckDB and ripgrep), start, hostile-queries (limits of queries)
            or live-streams (the API and 200 clients of live events beside intake)
            intake: [--series 10000,100000] [--repeat 3] [--samples N] [--targets wardroom,…] [--lake on|off]
            [--flush-seconds N] [--own-pace-minutes N] [--churn] [--check] [--json FILE] [--flame FILE.svg]
  eval      scores of judgement: rca --data PATH --out FILE | rca --fit WEIGHTS --data PATH… | tape FOLDER… | synthetic
  torture   crash tests: --bar 1a|1b|1e|1f|2b|2d|4a|4b|4c|5a|5e|7e|7f|9a|loop [--kills N]
            [--mutant NAME --runs 20] [--seed S] [--json FILE]
  mutants   mutation tests of approval and audit: the tests must catch nine mutants of ten
  dist      release build, stripped, with debug information in a separate file
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
        "test-kubernetes" => kubernetes_tests::run(arguments),
        "test-api" => api_tests::run(arguments),
        "test-browser" => browser_tests::run(arguments),
        "check" => check::run(arguments),
        "tidy" => tidy::run(arguments),
        "gen" => generate::run(arguments),
        "bench" => bench::run(arguments),
        "eval" => eval::run(arguments),
        "torture" => torture::run(arguments),
        "mutants" => mutation_tests::run(arguments),
        "dist" => dist::run(arguments),
        "help" => {
            anstream::print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        other => anyhow::bail!("unknown command {other:?}; see `cargo xtask help`"),
    }
}
