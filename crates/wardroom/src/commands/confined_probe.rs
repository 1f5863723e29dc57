//! `wardroom confined-probe`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use wardroom_roles::sandbox::{Isolation, sandbox_server};

use crate::output::{CommandResult, print_line};

/// Enter the server's sandbox, then try to open files; for tests and auditors.
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct ConfinedProbeArgs {
    /// The data folder.
    #[arg(long)]
    data: PathBuf,
    /// Files to open.
    paths: Vec<PathBuf>,
}

pub(crate) fn run(args: ConfinedProbeArgs) -> CommandResult {
    let isolation = sandbox_server(&args.data, None, &[]);
    anyhow::ensure!(isolation == Isolation::Landlock, "this kernel does not support Landlock");
    for path in args.paths {
        let opened = std::fs::File::open(&path).is_ok();
        print_line(format!("{} {}", path.display(), if opened { "opened" } else { "refused" }))?;
    }
    Ok(ExitCode::SUCCESS)
}
