//! `cargo xtask check`: format, lints, tidy, references, dependencies, docs.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::build::{cache, command, step, var};

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut ci = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("ci") => ci = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let mut format = command("cargo");
    format.args(["fmt", "--all"]);
    if ci {
        format.arg("--check");
    }
    step("format", &mut format)?;
    crate::tidy::check(!ci)?;
    let mut clippy = command("cargo");
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
    step("clippy", &mut clippy)?;
    let mut doc = command("cargo");
    doc.args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    step("doc", &mut doc)?;
    crate::generate::check(ci)?;
    let deny = installed("cargo-deny")?;
    let mut check = command(&deny);
    check.args(["--locked", "--workspace", "check"]);
    let advisories = advisories();
    if advisories {
        check.args(["--disable-fetch", "advisories"]);
    }
    check.args(["bans", "licenses", "sources"]);
    step("dependencies", &mut check)?;
    if !advisories {
        anstream::eprintln!(
            "advisories NOT checked: their database is not on a package registry; `cargo deny fetch` brings it where it can be reached"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the database of advisories was fetched before.
fn advisories() -> bool {
    let home =
        var("CARGO_HOME").map(PathBuf::from).or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let found = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    found.is_some_and(|mut entries| entries.next().is_some())
}

/// A cargo tool: the installed one, or one installed once into the cache.
pub(crate) fn installed(name: &str) -> anyhow::Result<PathBuf> {
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
