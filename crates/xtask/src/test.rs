//! `cargo xtask test`: every test, with everything it needs; and `torture`, the crash tests by themselves.

use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::build::{Programs, command, programs, step};
use crate::check::installed;
use crate::clients::Clients;
use crate::debian::{debian, libraries};

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    while let Some(argument) = arguments.next()? {
        match argument {
            // Nothing is installed on the machine; the flag is accepted for scripts that give it.
            Long("yes") => {}
            other => return Err(other.unexpected().into()),
        }
    }
    let programs = programs()?;
    let prometheus = debian("prometheus", "usr/bin/prometheus")?;
    let strace = debian("strace", "usr/bin/strace")?;
    // strace's own library; the machine need not have it.
    debian("libunwind8", "usr/share/doc/libunwind8")?;
    let clients = Clients::fetch()?;
    let promtool = prometheus.with_file_name("promtool");
    let nextest = installed("cargo-nextest")?;
    let mut tests = command(nextest);
    tests.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("WARDROOM_BIN", &programs.wardroom).env("SHOP_BIN", &programs.shop).env("EVALS_BIN", &programs.evals);
    tests.env("PROMETHEUS_BIN", prometheus).env("PROMTOOL_BIN", promtool).env("INSTA_UPDATE", "no");
    tests.env("STRACE_BIN", &strace).env("STRACE_LIBRARIES", libraries());
    clients.tell(&mut tests);
    step("tests", &mut tests)?;
    for (case, seed) in [("deployment", 1), ("decoy", 2), ("none", 3)] {
        let mut demo = command(std::env::current_exe()?);
        demo.args(["demo", "--headless", "--seed", &seed.to_string()]);
        with_programs(&mut demo, &programs);
        step(&format!("demo, one seed of case {case}"), &mut demo)?;
    }
    for (bar, kills) in
        [("1b", "60"), ("1f", "1"), ("4b", "5"), ("4c", "200"), ("7e", "1"), ("7f", "1"), ("loop", "60")]
    {
        let mut torture = command(&programs.evals);
        torture.args(["torture", "--bar", bar, "--kills", kills, "--seed", "1"]);
        torture.env("STRACE_BIN", &strace).env("STRACE_LIBRARIES", libraries());
        with_programs(&mut torture, &programs);
        step(&format!("torture {bar}, short form"), &mut torture)?;
    }
    anstream::eprintln!("all tests passed");
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
    programs.wardroom = mutants.unwrap_or(programs.wardroom);
    let mut torture = command(&programs.evals);
    torture.args(passed);
    debian("libunwind8", "usr/share/doc/libunwind8")?;
    torture.env("STRACE_BIN", debian("strace", "usr/bin/strace")?).env("STRACE_LIBRARIES", libraries());
    with_programs(&mut torture, &programs);
    step("torture", &mut torture)?;
    Ok(ExitCode::SUCCESS)
}

fn with_programs(command: &mut std::process::Command, programs: &Programs) {
    command.env("WARDROOM_BIN", &programs.wardroom).env("SHOP_BIN", &programs.shop).env("EVALS_BIN", &programs.evals);
}
