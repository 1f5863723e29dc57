//! `cargo xtask test-kubernetes`: lints and tests of the tool `kubernetes`, which the other builds leave out because
//! its client library is large. In a target folder of its own: with its features the other builds would be made again.

use std::process::ExitCode;

use crate::check::cargo_tool;
use crate::client_programs::ClientPrograms;
use crate::servers::ServerPrograms;
use crate::steps::{print_durations, step};
use crate::workspace::{command, target};

/// Arguments that select the crate and the feature.
const SELECTION: [&str; 6] =
    ["--package", "wardroom-tools", "--features", "wardroom-tools/kubernetes", "--locked", "--all-targets"];
/// Tests that the feature adds to, or that change with it.
const TESTS: &str = "test(kubernetes) | test(stateful_set) | test(coverage)";

/// Runs the command.
///
/// # Errors
/// Returns an error if a lint or a test fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    if let Some(argument) = arguments.next()? {
        return Err(argument.unexpected().into());
    }
    let folder = target().join("kubernetes");
    let clients = ClientPrograms::install()?;
    let servers = ServerPrograms::unpack()?;
    let mut clippy = command("cargo");
    clippy.args(["clippy", "--profile", "demo"]).args(SELECTION).args(["--", "-D", "warnings"]);
    step("clippy with the feature kubernetes", clippy.env("CARGO_TARGET_DIR", &folder))?;
    let mut tests = command(cargo_tool("cargo-nextest")?);
    tests.args(["nextest", "run", "--cargo-profile", "demo", "--no-fail-fast"]).args(SELECTION);
    tests.args(["--filterset", TESTS]).env("INSTA_UPDATE", "no").env("CARGO_TARGET_DIR", &folder);
    clients.set_env(&mut tests);
    servers.set_env(&mut tests);
    step("tests with the feature kubernetes", &mut tests)?;
    print_durations();
    Ok(ExitCode::SUCCESS)
}
