//! Output and results of commands.

use std::io::Write;
use std::process::ExitCode;

/// Result of a command: its exit code, or an error to print.
pub(crate) type CommandResult = anyhow::Result<ExitCode>;

/// Prints one line to stdout.
pub(crate) fn print_line(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Prints an error with its causes to stderr.
pub(crate) fn print_error(error: &anyhow::Error) {
    // If stderr is closed, the message has no destination.
    let _closed = writeln!(std::io::stderr(), "error: {error:#}");
}
