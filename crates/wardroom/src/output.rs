//! Output and results of commands.

use std::io::{Error, ErrorKind, StdoutLock, Write};
use std::process::ExitCode;

use wardroom_domain::{visible_json, visible_text};

/// Exit code after the reader of stdout has closed it: what a shell reports for a program that SIGPIPE has ended
/// (128 + 13), as it ends other programs.
const STDOUT_CLOSED_EXIT_CODE: u8 = 141;

/// Result of a command: its exit code, or an error to print.
pub(crate) type CommandResult = anyhow::Result<ExitCode>;

/// The reader of stdout has closed it, such as `head` after the lines it needs.
#[derive(Debug)]
struct StdoutClosed;

impl std::fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stdout was closed")
    }
}

impl std::error::Error for StdoutClosed {}

/// Stdout. A closed pipe is distinguished from that of a connection.
pub(crate) struct Stdout(StdoutLock<'static>);

/// Locks stdout.
pub(crate) fn stdout() -> Stdout {
    Stdout(std::io::stdout().lock())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(mark_closed)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(mark_closed)
    }
}

fn mark_closed(error: Error) -> Error {
    if error.kind() == ErrorKind::BrokenPipe { Error::new(ErrorKind::BrokenPipe, StdoutClosed) } else { error }
}

/// Prints text and a line feed to stdout. Control characters from telemetry are made visible; a text of several lines
/// must do the same with the line breaks of each part (`visible_line`).
pub(crate) fn print_line(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(stdout(), "{}", visible_text(&line.to_string()))
}

/// Prints JSON and a line feed to stdout; control characters in it are escaped.
pub(crate) fn print_json(json: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(stdout(), "{}", visible_json(&json.to_string()))
}

/// Prints a warning to stderr.
pub(crate) fn print_warning(warning: &str) {
    // If stderr is closed, the message has no destination.
    let _closed = writeln!(std::io::stderr(), "warning: {}", visible_text(warning));
}

/// Prints an error with its causes to stderr.
pub(crate) fn print_error(error: &anyhow::Error) {
    // If stderr is closed, the message has no destination.
    let _closed = writeln!(std::io::stderr(), "error: {}", visible_text(&format!("{error:#}")));
}

/// Ends a command: writes what stdout has buffered, and prints an error with its causes to stderr. A stdout that was
/// closed is no error to print.
pub(crate) fn finish(result: CommandResult) -> ExitCode {
    let error = match result.and_then(|code| Ok(stdout().flush().map(|()| code)?)) {
        Ok(code) => return code,
        Err(error) => error,
    };
    if is_stdout_closed(&error) {
        return ExitCode::from(STDOUT_CLOSED_EXIT_CODE);
    }
    print_error(&error);
    ExitCode::FAILURE
}

fn is_stdout_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<Error>());
    causes.any(|error| error.get_ref().is_some_and(|inner| inner.is::<StdoutClosed>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_stdout_is_told_from_a_closed_connection() {
        let closed = || Error::from(ErrorKind::BrokenPipe);
        assert!(is_stdout_closed(&mark_closed(closed()).into()));
        assert!(is_stdout_closed(&anyhow::Error::from(mark_closed(closed())).context("printing the table")));
        assert!(!is_stdout_closed(&closed().into()), "the server closed the connection");
        assert!(!is_stdout_closed(&mark_closed(Error::from(ErrorKind::StorageFull)).into()));
    }
}
