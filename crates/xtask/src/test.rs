//! `cargo xtask test`: unit, contract and scenario tests, then demo seeds beside the crash tests' short forms.

use std::process::ExitCode;

use lexopt::prelude::Long;

use crate::api_tools::ApiTools;
use crate::check::cargo_tool;
use crate::client_programs::ClientPrograms;
use crate::programs::{DEMO_FEATURES, DemoPrograms, Programs};
use crate::servers::ServerPrograms;
use crate::steps::{Step, print_durations, run_lanes, step};
use crate::tool_counterparts::ToolCounterparts;
use crate::torture::{FaultPrograms, Lane, SHORT_FORMS};
use crate::workspace::command;

/// One demo seed for each case.
const DEMO_SEEDS: [(&str, u64); 3] = [("deployment", 1), ("decoy", 2), ("none", 3)];

/// Runs the command.
///
/// # Errors
/// Returns an error if a step fails, or with `--strict` if a test had to be skipped.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut strict = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            // Accepted for scripts that pass it; nothing is installed on the machine.
            Long("yes") => {}
            Long("strict") => strict = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let result = run_steps(strict);
    print_durations();
    result.map(|()| ExitCode::SUCCESS)
}

fn run_steps(strict: bool) -> anyhow::Result<()> {
    let programs = Programs::build()?;
    let faults = FaultPrograms::unpack()?;
    let clients = ClientPrograms::install()?;
    let servers = ServerPrograms::unpack()?;
    let counterparts = ToolCounterparts::install()?;
    let api_tools = ApiTools::install()?;
    // The tests have the machine to themselves: one of them measures start time and memory.
    let mut tests = command(cargo_tool("cargo-nextest")?);
    tests.args(["nextest", "run", "--cargo-profile", "demo", "--workspace", "--locked", "--no-fail-fast"]);
    tests.args(DEMO_FEATURES).env("INSTA_UPDATE", "no");
    programs.set_env(&mut tests);
    faults.set_env(&mut tests);
    clients.set_env(&mut tests);
    servers.set_env(&mut tests);
    counterparts.set_env(&mut tests);
    api_tools.set_env(&mut tests);
    step("tests", &mut tests)?;
    // A demo mostly waits, on free ports of its own: the seeds run in turn, beside the crash tests that do not measure
    // anything. Both lanes take about as long; seeds side by side would only compete for the two processors.
    let root = command("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let crash_tests = |lane: Lane| -> Vec<Step> {
        let forms = SHORT_FORMS.iter().filter(|form| form.lane == lane && (root || form.bar != "4a"));
        forms.map(|form| form.step(&programs, &faults, &clients, &servers)).collect()
    };
    let demos = DEMO_SEEDS.iter().map(|(case, seed)| demo_step(case, *seed, &programs.demo));
    let demos = demos.collect::<anyhow::Result<Vec<Step>>>()?;
    let lanes = vec![demos, crash_tests(Lane::BesideDemos), crash_tests(Lane::Background)];
    run_lanes(lanes)?;
    run_lanes(vec![crash_tests(Lane::Alone)])?;
    anyhow::ensure!(root || !strict, "bar 4a (power loss) mounts its own file systems and needs root");
    if root {
        anstream::eprintln!("all tests passed");
    } else {
        anstream::eprintln!("all tests passed, one skipped that needs root: sudo cargo xtask torture --bar 4a");
    }
    Ok(())
}

fn demo_step(case: &str, seed: u64, programs: &DemoPrograms) -> anyhow::Result<Step> {
    let mut demo = command(std::env::current_exe()?);
    demo.args(["demo", "--headless", "--seed", &seed.to_string()]);
    programs.set_env(&mut demo);
    Ok(Step::new(format!("demo seed {seed}, case {case}"), demo))
}
