//! `cargo xtask test-browser`: the test with a real Chromium, which the other tests leave out because it is large.

use std::process::ExitCode;

use anyhow::Context;

use crate::check::cargo_tool;
use crate::client_programs::ClientPrograms;
use crate::programs::{DEMO_FEATURES, Programs, SCENARIO_TESTS};
use crate::steps::{print_durations, step};
use crate::workspace::{command, var};

/// Where Debian's package has it; CHROMIUM_BIN names another one.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Runs the command.
///
/// # Errors
/// Returns an error if there is no Chromium, or the test fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    if let Some(argument) = arguments.next()? {
        return Err(argument.unexpected().into());
    }
    let chromium = var("CHROMIUM_BIN").unwrap_or_else(|| CHROMIUM.to_owned());
    std::fs::metadata(&chromium)
        .with_context(|| format!("{chromium}: install Chromium, or set CHROMIUM_BIN to the program"))?;
    let (clients, programs) = (ClientPrograms::install()?, Programs::build()?);
    let mut tests = command(cargo_tool("cargo-nextest")?);
    tests.args(SCENARIO_TESTS).args(DEMO_FEATURES);
    let filter = "package(wardroom) & test(/^browser::/)";
    tests.args(["--run-ignored", "only", "--filterset", filter]).env("CHROMIUM_BIN", &chromium);
    programs.set_env(&mut tests);
    clients.set_env(&mut tests);
    step("test in Chromium", &mut tests)?;
    print_durations();
    Ok(ExitCode::SUCCESS)
}
