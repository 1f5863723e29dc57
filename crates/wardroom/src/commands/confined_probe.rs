//! `wardroom confined-probe`.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use wardroom_roles::config;
use wardroom_roles::server_sandbox;

use wardroom_cli::output::{CommandResult, print_line};

/// Enter the server's sandbox, then try what is forbidden in it; for tests and auditors.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct ConfinedProbeArgs {
    /// The data folder.
    #[arg(long)]
    data: PathBuf,
    /// Configuration file of the server.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Files to create; those that could be created are removed again.
    #[arg(long)]
    create: Vec<PathBuf>,
    /// Processes to send a signal to, which does nothing.
    #[arg(long)]
    signal: Vec<i32>,
    /// Files and folders to open.
    paths: Vec<PathBuf>,
}

pub(crate) fn run(args: ConfinedProbeArgs) -> CommandResult {
    let config = config::load(args.config.as_deref())?;
    let confinement = server_sandbox(&args.data, &config)?.enter();
    anyhow::ensure!(confinement.landlock_abi > 0, "this kernel does not support Landlock");
    for path in args.paths {
        print_result(&path.display().to_string(), File::open(&path).is_ok())?;
    }
    for path in args.create {
        let created = OpenOptions::new().write(true).create_new(true).open(&path).is_ok();
        print_result(&format!("create {}", path.display()), created && std::fs::remove_file(&path).is_ok())?;
    }
    for process in args.signal {
        print_result(&format!("signal {process}"), kill(Pid::from_raw(process), None).is_ok())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_result(attempt: &str, succeeded: bool) -> anyhow::Result<()> {
    Ok(print_line(format!("{attempt} {}", if succeeded { "opened" } else { "refused" }))?)
}
