//! `cargo xtask check`: format, tidy, lints, docs, generated references, dependencies.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::programs::DEMO_FEATURES;
use crate::steps::{print_durations, step, timed_step};
use crate::workspace::{cache, command, var};

/// Runs the command.
///
/// # Errors
/// Returns an error if a step fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut ci = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("ci") => ci = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let result = run_steps(ci);
    print_durations();
    result.map(|()| ExitCode::SUCCESS)
}

/// With `ci` nothing is written: a difference is an error.
fn run_steps(ci: bool) -> anyhow::Result<()> {
    let mut format = command("cargo");
    format.args(["fmt", "--all"]);
    if ci {
        format.arg("--check");
    }
    step("format", &mut format)?;
    timed_step("tidy", || crate::tidy::check(!ci))?;
    // Uses the profile and features of the tests, so that build scripts, which compile C, and procedural macros are
    // built once.
    let mut clippy = command("cargo");
    clippy.args(["clippy", "--profile", "demo", "--workspace", "--all-targets", "--locked"]).args(DEMO_FEATURES);
    clippy.args(["--", "-D", "warnings"]);
    step("clippy", &mut clippy)?;
    let mut doc = command("cargo");
    doc.args(["doc", "--profile", "demo", "--workspace", "--no-deps", "--locked", "--quiet"]).args(DEMO_FEATURES);
    step("doc", doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    crate::generate::check(ci)?;
    let mut deny = command(cargo_tool("cargo-deny")?);
    deny.args(["--locked", "--workspace", "check"]);
    let advisories = advisories_fetched();
    if advisories {
        deny.args(["--disable-fetch", "advisories"]);
    }
    step("dependencies", deny.args(["bans", "licenses", "sources"]))?;
    if !advisories {
        anstream::eprintln!(
            "advisories NOT checked: the advisory database is missing; `cargo deny fetch` downloads it where it can be reached"
        );
    }
    Ok(())
}

/// Whether `cargo deny fetch` has downloaded the advisory database.
fn advisories_fetched() -> bool {
    let home =
        var("CARGO_HOME").map(PathBuf::from).or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let databases = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    databases.is_some_and(|mut entries| entries.next().is_some())
}

/// Path of a cargo tool: the installed one, or one that is installed once into the cache.
///
/// # Errors
/// Returns an error if the tool cannot be installed.
pub(crate) fn cargo_tool(name: &str) -> anyhow::Result<PathBuf> {
    if command(name).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok(name.into());
    }
    let folder = cache().join("tools");
    let program = folder.join("bin").join(name);
    if !program.exists() {
        let mut install = command("cargo");
        install.args(["install", "--locked", "--quiet", name, "--root"]).arg(&folder);
        install.env("CARGO_TARGET_DIR", cache().join("tools-target"));
        step(&format!("install {name} (once)"), &mut install)?;
    }
    Ok(program)
}
