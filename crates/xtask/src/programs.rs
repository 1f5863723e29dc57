//! Builds the programs that the demo, the tests and the benchmarks run.
//!
//! Everything in profile `demo` is built with one feature set: that of all workspace members. `--workspace --bin NAME`
//! keeps it while building only what NAME needs, whereas `-p NAME` would compile `ahash`, and with it the lake's
//! dependencies, once more with other features.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;

use crate::steps::step;
use crate::workspace::{command, target, var};

/// Arguments that select profile and features of everything in profile `demo`; the tests pass the same features.
pub(crate) const DEMO_FEATURES: [&str; 3] = ["--no-default-features", "--features", "wardroom/demo"];
/// Arguments of a run of some scenario tests, with the features that all tests have; a filter selects the tests.
pub(crate) const SCENARIO_TESTS: [&str; 7] =
    ["nextest", "run", "--cargo-profile", "demo", "--workspace", "--test", "it"];
/// Release builds select these packages, so that the packaged binary is the benchmarked one.
pub(crate) const RELEASE_PACKAGES: [&str; 4] = ["-p", "wardroom", "-p", "wardroom-evals"];

/// The programs that the demo runs.
#[derive(Clone, Debug)]
pub(crate) struct DemoPrograms {
    pub(crate) wardroom: PathBuf,
    pub(crate) shop: PathBuf,
}

impl DemoPrograms {
    /// Builds `wardroom` and `shop` in profile `demo`, unless WARDROOM_BIN and SHOP_BIN name existing ones.
    ///
    /// # Errors
    /// Returns an error if no C compiler is installed or the build fails.
    pub(crate) fn build() -> anyhow::Result<Self> {
        if let (Some(wardroom), Some(shop)) = (var("WARDROOM_BIN"), var("SHOP_BIN")) {
            return Ok(Self { wardroom: wardroom.into(), shop: shop.into() });
        }
        require_compiler()?;
        step("build wardroom and shop", demo_build().args(["--bin", "wardroom", "--bin", "shop"]).args(DEMO_FEATURES))?;
        Ok(Self { wardroom: target().join("demo/wardroom"), shop: target().join("demo/shop") })
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        command.env("WARDROOM_BIN", &self.wardroom).env("SHOP_BIN", &self.shop);
    }
}

/// The programs that the tests run.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) demo: DemoPrograms,
    pub(crate) evals: PathBuf,
}

impl Programs {
    /// Builds all programs in profile `demo`, unless WARDROOM_BIN, SHOP_BIN and EVALS_BIN name existing ones.
    ///
    /// # Errors
    /// Returns an error if no C compiler is installed or the build fails.
    pub(crate) fn build() -> anyhow::Result<Self> {
        if let (Some(wardroom), Some(shop), Some(evals)) = (var("WARDROOM_BIN"), var("SHOP_BIN"), var("EVALS_BIN")) {
            let demo = DemoPrograms { wardroom: wardroom.into(), shop: shop.into() };
            return Ok(Self { demo, evals: evals.into() });
        }
        require_compiler()?;
        step("build all programs", demo_build().arg("--bins").args(DEMO_FEATURES))?;
        let folder = target().join("demo");
        let demo = DemoPrograms { wardroom: folder.join("wardroom"), shop: folder.join("shop") };
        Ok(Self { demo, evals: folder.join("wardroom-evals") })
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        self.demo.set_env(command);
        command.env("EVALS_BIN", &self.evals);
    }
}

/// Builds `wardroom` and `wardroom-evals` with deliberate faults (feature `mutants`) and returns copies of them, in
/// that order.
///
/// # Errors
/// Returns an error if the build fails or the programs cannot be copied.
pub(crate) fn build_mutants() -> anyhow::Result<[PathBuf; 2]> {
    let features = ["--no-default-features", "--features", "wardroom/demo,wardroom/mutants"];
    step("build mutants", demo_build().arg("--bins").args(features))?;
    let folder = target().join("demo");
    let copy = |name: &str| -> std::io::Result<PathBuf> {
        let copied = folder.join(format!("{name}-mutants"));
        std::fs::copy(folder.join(name), &copied)?;
        Ok(copied)
    };
    Ok([copy("wardroom")?, copy("wardroom-evals")?])
}

fn demo_build() -> Command {
    let mut build = command("cargo");
    build.args(["build", "--profile", "demo", "--workspace", "--locked"]);
    build
}

fn require_compiler() -> anyhow::Result<()> {
    if command("cc").arg("--version").output().is_err() {
        bail!("a C compiler is missing; install it with: apt-get install -y build-essential");
    }
    Ok(())
}
