//! `cargo xtask mutants`: bar 9d. cargo-mutants changes every function of approval and audit in turn; a test must fail.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::check::cargo_tool;
use crate::programs::DemoPrograms;
use crate::workspace::{cache, command};

/// Share of the mutants that the tests must catch.
const MIN_CAUGHT_PERCENT: u64 = 90;

/// Runs the command; the remaining arguments are passed to cargo-mutants.
///
/// # Errors
/// Returns an error if cargo-mutants cannot run or too few mutants are caught.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let forwarded_arguments: Vec<_> = arguments.raw_args()?.collect();
    let programs = DemoPrograms::build()?;
    let out = cache().join("mutants");
    std::fs::create_dir_all(&out)?;
    let mut mutants = command(cargo_tool("cargo-mutants")?);
    mutants.args(["mutants", "--workspace", "--output"]).arg(&out).args(forwarded_arguments);
    programs.set_env(&mut mutants);
    // It exits with an error as soon as one mutant is missed; the share is checked below instead.
    let status = mutants.status().context("cannot run cargo-mutants")?;
    let file = out.join("mutants.out/outcomes.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}: {status}", file.display()))?;
    let outcomes: Value = serde_json::from_str(&text)?;
    let count = |name: &str| outcomes[name].as_u64().unwrap_or_default();
    let (caught, missed) = (count("caught") + count("timeout"), count("missed"));
    anstream::eprintln!("{caught} of {} mutants caught", caught + missed);
    if caught == 0 || caught * 100 < (caught + missed) * MIN_CAUGHT_PERCENT {
        bail!("fewer than {MIN_CAUGHT_PERCENT} % caught; see {}", out.join("mutants.out/missed.txt").display());
    }
    Ok(ExitCode::SUCCESS)
}
