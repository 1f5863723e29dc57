//! `cargo xtask test`: every test, with everything it needs; and `torture`, the crash tests by themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::build::{Programs, command, programs, step};
use crate::check::installed;
use crate::clients::Clients;
use crate::debian::{debian, libraries};

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut strict = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            // Nothing is installed on the machine; the flag is accepted for scripts that give it.
            Long("yes") => {}
            // Nothing may be left out.
            Long("strict") => strict = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let programs = programs()?;
    let nemesis = Nemesis::fetch()?;
    let clients = Clients::fetch()?;
    let nextest = installed("cargo-nextest")?;
    let mut tests = command(nextest);
    // In the programs' profile: what the lake brings is built once.
    tests.args(["nextest", "run", "--cargo-profile", "demo", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("WARDROOM_BIN", &programs.wardroom).env("SHOP_BIN", &programs.shop).env("EVALS_BIN", &programs.evals);
    tests.env("INSTA_UPDATE", "no");
    nemesis.tell(&mut tests);
    clients.tell(&mut tests);
    step("tests", &mut tests)?;
    for (case, seed) in [("deployment", 1), ("decoy", 2), ("none", 3)] {
        let mut demo = command(std::env::current_exe()?);
        demo.args(["demo", "--headless", "--seed", &seed.to_string()]);
        with_programs(&mut demo, &programs);
        step(&format!("demo, one seed of case {case}"), &mut demo)?;
    }
    let root = command("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    for (bar, kills) in SHORT.into_iter().filter(|(bar, _)| root || *bar != "4a") {
        let mut torture = command(&programs.evals);
        torture.args(["torture", "--bar", bar, "--kills", kills, "--seed", "1"]);
        nemesis.tell(&mut torture);
        clients.tell(&mut torture);
        with_programs(&mut torture, &programs);
        step(&format!("torture {bar}, short form"), &mut torture)?;
    }
    anyhow::ensure!(root || !strict, "bar 4a (power cuts) mounts file systems of its own and needs root");
    if root {
        anstream::eprintln!("all tests passed");
    } else {
        anstream::eprintln!("all tests passed but one that needs root: sudo cargo xtask torture --bar 4a");
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask torture …`: hands on to the oracle, with the programs it needs.
pub(crate) fn torture(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut passed: Vec<std::ffi::OsString> = vec!["torture".into()];
    let mut mutant = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long(name) => {
                let name = name.to_owned();
                let value = arguments.value()?;
                // Only that build has something to panic on.
                mutant |= name == "mutant" || (name == "bar" && value == "2b");
                passed.push(format!("--{name}").into());
                passed.push(value);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let mutants = if mutant { Some(crate::build::mutants()?) } else { None };
    let mut programs = programs()?;
    if let Some([wardroom, evals]) = mutants {
        (programs.wardroom, programs.evals) = (wardroom, evals);
    }
    let mut torture = command(&programs.evals);
    torture.args(passed);
    Nemesis::fetch()?.tell(&mut torture);
    Clients::fetch()?.tell(&mut torture);
    with_programs(&mut torture, &programs);
    step("torture", &mut torture)?;
    Ok(ExitCode::SUCCESS)
}

/// The short forms of the crash tests, with how many kills each has.
const SHORT: [(&str, &str); 14] = [
    ("1a", "1"),
    ("1b", "60"),
    ("1e", "1"),
    ("1f", "1"),
    ("2d", "1"),
    ("4a", "20"),
    ("4b", "5"),
    ("4c", "200"),
    ("5a", "60"),
    ("5e", "4"),
    ("7e", "1"),
    ("7f", "1"),
    ("9a", "20"),
    ("loop", "60"),
];

/// Programs that break things, and one that is a witness.
struct Nemesis {
    prometheus: PathBuf,
    strace: PathBuf,
    mkfs: PathBuf,
}

impl Nemesis {
    fn fetch() -> anyhow::Result<Self> {
        // Libraries of theirs that the machine need not have.
        for library in ["libunwind8", "libinih1", "liburcu8"] {
            debian(library, &format!("usr/share/doc/{library}"))?;
        }
        Ok(Self {
            prometheus: debian("prometheus", "usr/bin/prometheus")?,
            strace: debian("strace", "usr/bin/strace")?,
            mkfs: debian("xfsprogs", "sbin/mkfs.xfs")?,
        })
    }

    fn tell(&self, command: &mut std::process::Command) {
        command.env("PROMETHEUS_BIN", &self.prometheus).env("PROMTOOL_BIN", self.prometheus.with_file_name("promtool"));
        command.env("STRACE_BIN", &self.strace).env("MKFS_XFS_BIN", &self.mkfs);
        command.env("DEBIAN_LIBRARIES", libraries());
    }
}

fn with_programs(command: &mut std::process::Command, programs: &Programs) {
    command.env("WARDROOM_BIN", &programs.wardroom).env("SHOP_BIN", &programs.shop).env("EVALS_BIN", &programs.evals);
}
