//! `cargo xtask eval …`: builds in release and scores the product's judgement on public data.

use std::process::ExitCode;

use crate::programs::RELEASE_PACKAGES;
use crate::steps::step;
use crate::workspace::{command, target};

/// Runs the command; all arguments are passed to `wardroom-evals eval`.
///
/// # Errors
/// Returns an error if the build or the evaluation fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked"]).args(RELEASE_PACKAGES).arg("--bins");
    step("release build", &mut build)?;
    let mut eval = command(target().join("release/wardroom-evals"));
    eval.arg("eval").args(arguments.raw_args()?);
    step("eval", &mut eval)?;
    Ok(ExitCode::SUCCESS)
}
