//! Output and results of commands.

use std::io::Write;
use std::process::ExitCode;

use wardroom_domain::{visible_json, visible_text};

/// Result of a command: its exit code, or an error to print.
pub(crate) type CommandResult = anyhow::Result<ExitCode>;

/// Prints text and a line feed to stdout. Control characters from telemetry are made visible; a text of several lines
/// must do the same with the line breaks of each part (`visible_line`).
pub(crate) fn print_line(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", visible_text(&line.to_string()))
}

/// Prints JSON and a line feed to stdout; control characters in it are escaped.
pub(crate) fn print_json(json: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", visible_json(&json.to_string()))
}

/// Prints an error with its causes to stderr.
pub(crate) fn print_error(error: &anyhow::Error) {
    // If stderr is closed, the message has no destination.
    let _closed = writeln!(std::io::stderr(), "error: {}", visible_text(&format!("{error:#}")));
}
