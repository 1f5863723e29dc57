//! `cargo xtask test-api`: the API held against its own OpenAPI document by tools that others wrote.
//!
//! Without `--long` these are the tests that `cargo xtask test` runs, too: schemathesis with few examples for each
//! operation, and an incident worked through with generated clients. With `--long` schemathesis tries all its phases.

use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::api_tools::ApiTools;
use crate::check::cargo_tool;
use crate::programs::{DEMO_FEATURES, Programs, SCENARIO_TESTS};
use crate::steps::{print_durations, step};
use crate::workspace::command;

/// Runs the command.
///
/// # Errors
/// Returns an error if a tool cannot be installed, or a test fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut long = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("long") => long = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let (tools, programs) = (ApiTools::install()?, Programs::build()?);
    let mut tests = command(cargo_tool("cargo-nextest")?);
    tests.args(SCENARIO_TESTS).args(DEMO_FEATURES).arg("--no-fail-fast");
    tests.args(["--filterset", "package(wardroom) & test(/^api_document::/)"]);
    if long {
        tests.args(["--run-ignored", "all", "--profile", "long"]);
    }
    programs.set_env(&mut tests);
    tools.set_env(&mut tests);
    step("test the API against its document", &mut tests)?;
    print_durations();
    Ok(ExitCode::SUCCESS)
}
