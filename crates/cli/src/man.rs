//! `wardroom man`: manual pages.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command};
use clap_mangen::Man;
use serde_json::json;

use crate::output::{CommandResult, print_result, stdout};
use crate::presentation::OutputArgs;

/// Print a manual page, or write all of them into a folder.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom man incidents approve | man -l -
  wardroom man --out /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The command whose page is printed, such as: incidents approve.
    #[arg(conflicts_with = "out")]
    command: Vec<String>,
    /// Folder into which the pages of all commands are written.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints or writes the pages of a program.
///
/// # Errors
/// Returns an error if there is no such command, or a file cannot be written.
pub fn run(args: &ManArgs, program: Command) -> CommandResult {
    let mut program = program.disable_help_subcommand(true);
    // Gives every subcommand its whole name.
    program.build();
    if let Some(folder) = &args.out {
        let mut names = Vec::new();
        write_pages(&program, folder, &mut names)?;
        let message = format!("{} pages written to {}", names.len(), folder.display());
        return print_result(&json!({ "pages": names, "folder": folder }), message, &args.output);
    }
    let mut command = &program;
    for word in &args.command {
        let known: Vec<&str> = visible_subcommands(command).map(Command::get_name).collect();
        command = command
            .find_subcommand(word)
            .with_context(|| format!("there is no command {word:?}; there are {}", known.join(", ")))?;
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    stdout().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: &Command, folder: &Path, names: &mut Vec<String>) -> anyhow::Result<()> {
    let page = Man::new(command.clone());
    let path = folder.join(page.get_filename());
    page.generate_to(folder).with_context(|| path.display().to_string())?;
    names.push(page.get_filename());
    visible_subcommands(command).try_for_each(|subcommand| write_pages(subcommand, folder, names))
}

fn visible_subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_under_its_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        let hidden = Command::new("internal").hide(true);
        let list = Command::new("list").about("List incidents");
        let program = Command::new("wardroom").subcommands([Command::new("incidents").subcommand(list), hidden]);
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let mut names = Vec::new();
        write_pages(&program, folder.path(), &mut names).unwrap();
        assert_eq!(names, ["wardroom.1", "wardroom-incidents.1", "wardroom-incidents-list.1"]);
        let page = std::fs::read_to_string(folder.path().join("wardroom-incidents-list.1")).unwrap();
        assert!(page.contains("List incidents"), "{page}");
    }
}
