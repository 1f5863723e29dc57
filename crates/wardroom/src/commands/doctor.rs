//! `wardroom doctor`: examines files here, then the server.

use std::path::PathBuf;

use clap::Args;
use wardroom_cli::doctor::{self, ExaminedServerArgs, Finding};
use wardroom_cli::output::CommandResult;
use wardroom_roles::config;
use wardroom_roles::executor::check_config;

/// Examine a server: what is connected, what is silent, what is misconfigured, and how to mend it.
///
/// It only reads. Exit code 1 if something needs attention.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom doctor
  wardroom doctor --config wardroom.yaml --executor-config executor.yaml
  wardroom doctor -o json | jq -r '.findings[] | select(.level == \"fail\") | .detail'")]
pub(crate) struct DoctorArgs {
    /// Configuration file of the server, to check it, too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Configuration file of the executor, to check it, too.
    #[arg(long, value_name = "FILE")]
    executor_config: Option<PathBuf>,
    #[command(flatten)]
    server: ExaminedServerArgs,
}

pub(crate) fn run(args: DoctorArgs) -> CommandResult {
    let mut findings = Vec::new();
    if let Some(file) = &args.config {
        let checked = config::load_with_folders(Some(file)).map(drop).map_err(|error| error.to_string());
        findings.push(finding(&file.display().to_string(), checked));
    }
    if let Some(file) = &args.executor_config {
        let checked = check_config(file).map_err(|error| error.to_string());
        findings.push(finding(&file.display().to_string(), checked));
    }
    doctor::run(&args.server, findings)
}

fn finding(file: &str, checked: Result<(), String>) -> Finding {
    match checked {
        Ok(()) => Finding::ok("file", format!("{file} is valid")),
        Err(error) => Finding::fail("file", error, format!("correct {file}; the server does not start with it")),
    }
}
