//! `cargo xtask mutants`: bar 9d. Every function of approval and audit is bent in turn, and a test must notice.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::build::{cache, command, programs};
use crate::check::installed;

/// Of a hundred bent functions, so many must be noticed.
const GOAL_PERCENT: u64 = 90;

/// Runs the command; whatever stands behind it goes to cargo-mutants.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let passed: Vec<_> = arguments.raw_args()?.collect();
    let programs = programs()?;
    let out = cache().join("mutants");
    std::fs::create_dir_all(&out)?;
    installed("cargo-mutants")?;
    let mut mutants = command(installed("cargo-mutants")?);
    mutants.args(["mutants", "--workspace", "--output"]).arg(&out).args(passed);
    mutants.env("WARDROOM_BIN", &programs.wardroom).env("SHOP_BIN", &programs.shop);
    // It fails as soon as one is missed: what counts is the share.
    let status = mutants.status().context("cargo-mutants cannot be run")?;
    let file = out.join("mutants.out/outcomes.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}: {status}", file.display()))?;
    let outcomes: Value = serde_json::from_str(&text)?;
    let count = |name: &str| outcomes[name].as_u64().unwrap_or_default();
    let (caught, missed) = (count("caught") + count("timeout"), count("missed"));
    anstream::eprintln!("{caught} of {} bent functions noticed", caught + missed);
    if caught == 0 || caught * 100 < (caught + missed) * GOAL_PERCENT {
        bail!("fewer than {GOAL_PERCENT} % noticed; see {}", out.join("mutants.out/missed.txt").display());
    }
    Ok(ExitCode::SUCCESS)
}
