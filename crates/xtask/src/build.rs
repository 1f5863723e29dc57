//! Running cargo, with the target folder in a cache outside the clone, and saying how long it took.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

/// The folder of the workspace, as cargo says at the moment: clones that share a target folder share this program, too, and
/// the folder it was built in may be another's, or gone.
pub(crate) fn root() -> PathBuf {
    let here = var("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// Where everything that may be made again is kept.
pub(crate) fn cache() -> PathBuf {
    let home =
        var("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cache")));
    home.unwrap_or_else(|| PathBuf::from("/tmp")).join("wardroom")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    var("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}

/// A variable of the environment.
#[expect(clippy::disallowed_methods, reason = "xtask is a developer's tool; it has no configuration")]
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A command in the workspace's folder.
#[expect(clippy::disallowed_methods, reason = "xtask's job is to run programs")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    // What cargo tells this program of itself is not for the cargo it starts: build scripts that look at it (ring's) would be
    // run again, and half of the lake built again with them, in every other clone.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_BIN_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a step and says how long it took.
pub(crate) fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    anstream::eprintln!("\x1b[1m{name}\x1b[0m …");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("{name}: cannot run {:?}", command.get_program()))?;
    let took = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{name} failed after {took:.0} s ({status})");
    }
    anstream::eprintln!("{name}: {took:.1} s");
    Ok(())
}

/// The programs that the demo and the scenario tests run.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) wardroom: PathBuf,
    pub(crate) shop: PathBuf,
    pub(crate) evals: PathBuf,
}

/// Builds all programs in the profile `demo`; WARDROOM_BIN, SHOP_BIN and EVALS_BIN name ones built before.
pub(crate) fn programs() -> anyhow::Result<Programs> {
    if let (Some(wardroom), Some(shop), Some(evals)) = (var("WARDROOM_BIN"), var("SHOP_BIN"), var("EVALS_BIN")) {
        return Ok(Programs { wardroom: wardroom.into(), shop: shop.into(), evals: evals.into() });
    }
    need_compiler()?;
    let mut build = command("cargo");
    build.args(["build", "--profile", "demo", "--workspace", "--bins", "--locked"]);
    step("build", &mut build)?;
    let folder = target().join("demo");
    let program = |name: &str| folder.join(name);
    Ok(Programs { wardroom: program("wardroom"), shop: program("shop"), evals: program("wardroom-evals") })
}

/// Builds the variant with faults on purpose, beside the shipped one: the server, and what bends itself.
pub(crate) fn mutants() -> anyhow::Result<[PathBuf; 2]> {
    let mut build = command("cargo");
    build.args(["build", "--profile", "demo", "--workspace", "--bins", "--locked", "--features", "wardroom/mutants"]);
    step("build mutants", &mut build)?;
    let folder = target().join("demo");
    let keep = |name: &str| -> std::io::Result<PathBuf> {
        let kept = folder.join(format!("{name}-mutants"));
        std::fs::copy(folder.join(name), &kept)?;
        Ok(kept)
    };
    Ok([keep("wardroom")?, keep("wardroom-evals")?])
}

fn need_compiler() -> anyhow::Result<()> {
    if command("cc").arg("--version").output().is_err() {
        bail!("a C compiler is missing; install it with: apt-get install -y build-essential");
    }
    Ok(())
}
