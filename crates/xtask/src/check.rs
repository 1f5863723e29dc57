//! `cargo xtask check`: format, lints, tidy, references, dependencies, docs.

use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::build::{cache, command, step};

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
    check.args(["--locked", "--workspace", "check", "bans", "licenses", "sources"]);
    step("dependencies", &mut check)?;
    anstream::eprintln!("advisories NOT checked: their database is not on a package registry");
    Ok(ExitCode::SUCCESS)
}

/// A cargo tool: the installed one, or one installed once into the cache.
pub(crate) fn installed(name: &str) -> anyhow::Result<std::path::PathBuf> {
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
