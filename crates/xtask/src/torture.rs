//! The crash tests: `cargo xtask torture` for one bar, and the short forms that `cargo xtask test` runs.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use lexopt::prelude::Long;

use crate::client_programs::ClientPrograms;
use crate::debian_packages::{library_folder, unpack, unpack_libraries};
use crate::programs::{Programs, build_mutants};
use crate::servers::ServerPrograms;
use crate::steps::{Step, step};
use crate::workspace::command;

/// `cargo xtask torture …`: passes the arguments to `wardroom-evals`, with the programs that it needs.
///
/// # Errors
/// Returns an error if a program cannot be built or unpacked, or the crash test fails.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut forwarded_arguments: Vec<std::ffi::OsString> = vec!["torture".into()];
    let mut mutant = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long(name) => {
                let name = name.to_owned();
                let value = arguments.value()?;
                // Bar 2b needs the mutants' build, too: it contains the record that panics its handler.
                mutant |= name == "mutant" || (name == "bar" && value == "2b");
                forwarded_arguments.push(format!("--{name}").into());
                forwarded_arguments.push(value);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let mutants = if mutant { Some(build_mutants()?) } else { None };
    let mut programs = Programs::build()?;
    if let Some([wardroom, evals]) = mutants {
        (programs.demo.wardroom, programs.evals) = (wardroom, evals);
    }
    let mut torture = command(&programs.evals);
    torture.args(forwarded_arguments);
    FaultPrograms::unpack()?.set_env(&mut torture);
    ClientPrograms::install()?.set_env(&mut torture);
    ServerPrograms::unpack()?.set_env(&mut torture);
    programs.set_env(&mut torture);
    step("torture", &mut torture)?;
    Ok(ExitCode::SUCCESS)
}

/// What a short form may run beside, in `cargo xtask test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Nothing: it measures latency or throughput.
    Alone,
    /// The demos: it mostly waits.
    BesideDemos,
    /// Everything but `Alone`: it only needs CPU and limits the CPU time of each input, not its wall time.
    Background,
}

/// The short form of a crash test.
pub(crate) struct ShortForm {
    pub(crate) bar: &'static str,
    kills: &'static str,
    pub(crate) lane: Lane,
}

/// The short forms of the bars, in the order in which each lane runs them. The power-loss bar (4a), whose servers have
/// to start within 5 s, comes last in its lane: by then the demos, which take two minutes, have usually ended.
pub(crate) const SHORT_FORMS: [ShortForm; 19] = [
    ShortForm { bar: "loop", kills: "78", lane: Lane::BesideDemos },
    ShortForm { bar: "3a", kills: "12", lane: Lane::BesideDemos },
    ShortForm { bar: "3d", kills: "2", lane: Lane::BesideDemos },
    ShortForm { bar: "3e", kills: "300", lane: Lane::BesideDemos },
    ShortForm { bar: "6h", kills: "1", lane: Lane::BesideDemos },
    ShortForm { bar: "1e", kills: "1", lane: Lane::BesideDemos },
    ShortForm { bar: "5e", kills: "4", lane: Lane::BesideDemos },
    ShortForm { bar: "1a", kills: "1", lane: Lane::BesideDemos },
    ShortForm { bar: "1f", kills: "1", lane: Lane::BesideDemos },
    ShortForm { bar: "7h", kills: "180", lane: Lane::BesideDemos },
    ShortForm { bar: "4b", kills: "5", lane: Lane::BesideDemos },
    ShortForm { bar: "4c", kills: "200", lane: Lane::BesideDemos },
    ShortForm { bar: "5a", kills: "60", lane: Lane::BesideDemos },
    ShortForm { bar: "4a", kills: "20", lane: Lane::BesideDemos },
    ShortForm { bar: "9a", kills: "20", lane: Lane::Background },
    ShortForm { bar: "1b", kills: "60", lane: Lane::Alone },
    ShortForm { bar: "2d", kills: "1", lane: Lane::Alone },
    ShortForm { bar: "7e", kills: "1", lane: Lane::Alone },
    ShortForm { bar: "7f", kills: "1", lane: Lane::Alone },
];

impl ShortForm {
    /// The step that runs it, at a lower priority than the demos unless it runs alone.
    pub(crate) fn step(
        &self,
        programs: &Programs,
        faults: &FaultPrograms,
        clients: &ClientPrograms,
        servers: &ServerPrograms,
    ) -> Step {
        let niceness = match self.lane {
            Lane::Alone => None,
            Lane::BesideDemos => Some("10"),
            Lane::Background => Some("19"),
        };
        let mut torture = match niceness {
            None => command(&programs.evals),
            Some(niceness) => {
                let mut nice = command("nice");
                nice.args(["-n", niceness]).arg(&programs.evals);
                nice
            }
        };
        torture.args(["torture", "--bar", self.bar, "--kills", self.kills, "--seed", "1"]);
        faults.set_env(&mut torture);
        clients.set_env(&mut torture);
        servers.set_env(&mut torture);
        programs.set_env(&mut torture);
        Step::new(format!("torture {}, short form", self.bar), torture)
    }
}

/// Programs that inject faults, and a Prometheus that the crash tests scrape and send with.
pub(crate) struct FaultPrograms {
    prometheus: PathBuf,
    strace: PathBuf,
    mkfs: PathBuf,
}

impl FaultPrograms {
    /// Unpacks them into the cache.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or unpacked.
    pub(crate) fn unpack() -> anyhow::Result<Self> {
        unpack_libraries(&["libunwind8", "libinih1", "liburcu8"])?;
        Ok(Self {
            prometheus: unpack("prometheus", "usr/bin/prometheus")?,
            strace: unpack("strace", "usr/bin/strace")?,
            mkfs: unpack("xfsprogs", "sbin/mkfs.xfs")?,
        })
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        command.env("PROMETHEUS_BIN", &self.prometheus).env("PROMTOOL_BIN", self.prometheus.with_file_name("promtool"));
        command.env("STRACE_BIN", &self.strace).env("MKFS_XFS_BIN", &self.mkfs);
        command.env("DEBIAN_LIBRARIES", library_folder());
    }
}
