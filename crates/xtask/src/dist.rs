//! `cargo xtask dist`: a release build of `wardroom`, with its debug information and symbols in a file beside it.
//!
//! The backtraces of panics still name functions and lines as long as `wardroom.debug` is beside the binary, as do gdb
//! and perf.

use std::path::Path;
use std::process::ExitCode;

use crate::programs::RELEASE_PACKAGES;
use crate::steps::step;
use crate::workspace::{command, target};

/// Runs the command.
///
/// # Errors
/// Returns an error if the build or objcopy fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    if let Some(argument) = arguments.next()? {
        return Err(argument.unexpected().into());
    }
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked"]).args(RELEASE_PACKAGES).args(["--bin", "wardroom"]);
    step("release build", &mut build)?;
    let built = target().join("release/wardroom");
    let folder = target().join("dist");
    std::fs::create_dir_all(&folder)?;
    let mut split = objcopy();
    split.arg("--only-keep-debug").arg(&built).arg(folder.join("wardroom.debug"));
    step("split debug information", &mut split)?;
    let mut strip = objcopy();
    // The link is the file's name and checksum; it is looked for in the binary's folder.
    strip.args(["--strip-unneeded", "--add-gnu-debuglink=wardroom.debug"]).arg(&built).arg(folder.join("wardroom"));
    step("strip", strip.current_dir(&folder))?;
    for path in [built, folder.join("wardroom"), folder.join("wardroom.debug")] {
        anstream::println!("{:>8.1} MB  {}", megabytes(&path)?, path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Part of binutils, which Debian's build-essential includes.
fn objcopy() -> std::process::Command {
    command("objcopy")
}

fn megabytes(path: &Path) -> anyhow::Result<f64> {
    Ok(std::fs::metadata(path)?.len() as f64 / 1e6)
}
