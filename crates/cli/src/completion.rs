//! `wardroom completion`: completions of a shell.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use crate::output::{CommandResult, stdout};

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletedShell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

impl From<CompletedShell> for Shell {
    fn from(shell: CompletedShell) -> Self {
        match shell {
            CompletedShell::Bash => Self::Bash,
            CompletedShell::Zsh => Self::Zsh,
            CompletedShell::Fish => Self::Fish,
        }
    }
}

/// Print completions for a shell.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  source <(wardroom completion bash)
  wardroom completion zsh > ~/.zfunc/_wardroom
  wardroom completion fish > ~/.config/fish/completions/wardroom.fish")]
pub struct CompletionArgs {
    /// The shell.
    shell: CompletedShell,
}

/// Prints the completions of a program.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn run(args: &CompletionArgs, program: Command) -> CommandResult {
    stdout().write_all(&script(args.shell, program))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the script. It is made in memory: the generator ends the program if a write fails.
pub fn script(shell: CompletedShell, mut program: Command) -> Vec<u8> {
    let (name, mut script) = (program.get_name().to_owned(), Vec::new());
    generate(Shell::from(shell), &mut program, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_with_the_subcommands() {
        for shell in CompletedShell::value_variants() {
            let program = Command::new("wardroom").subcommand(Command::new("incidents").about("Incidents"));
            let script = String::from_utf8(script(*shell, program)).unwrap();
            assert!(script.contains("wardroom") && script.contains("incidents"), "{shell:?}: {script}");
        }
    }
}
