//! What commands print, and how they end.

use std::io::{Error, ErrorKind, StdoutLock, Write};
use std::process::ExitCode;

use serde_json::Value;
use wardroom_domain::{visible_json, visible_text};

use crate::columns::Column;
use crate::exit_code::{STDOUT_CLOSED, exit_code_of, remedy_of};
use crate::presentation::{OutputArgs, OutputFormat, Presentation};
use crate::table_layout::table_lines;

/// Result of a command: its exit code, or an error to print.
pub type CommandResult = anyhow::Result<ExitCode>;

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
#[derive(Debug)]
pub struct Stdout(StdoutLock<'static>);

/// Locks stdout.
pub fn stdout() -> Stdout {
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
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_line(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(stdout(), "{}", visible_text(&line.to_string()))
}

/// Prints lines whose text from telemetry is made visible already, and that may have colours.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_prepared(lines: &[String]) -> std::io::Result<()> {
    let mut stdout = stdout();
    lines.iter().try_for_each(|line| writeln!(stdout, "{line}"))?;
    stdout.flush()
}

/// Prints JSON and a line feed to stdout; control characters in it are escaped.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_json(json: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(stdout(), "{}", visible_json(&json.to_string()))
}

/// Prints a document as JSON or YAML: JSON of one line for a program, of several on a terminal.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_document(document: &Value, presentation: &Presentation) -> anyhow::Result<()> {
    match presentation.format {
        OutputFormat::Yaml => {
            let text = serde_saphyr::to_string(document)?;
            write!(stdout(), "---\n{}", visible_text(&text))?;
        }
        _ if presentation.is_terminal => print_json(serde_json::to_string_pretty(document)?)?,
        _ => print_json(document)?,
    }
    Ok(())
}

/// Prints the rows of a document as a table, or the document.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_rows(document: &Value, rows: &str, columns: &[Column], args: &OutputArgs) -> CommandResult {
    let presentation = args.presentation();
    if args.is_document() {
        print_document(document, &presentation)?;
    } else {
        print_prepared(&table_lines(columns, document[rows].as_array().into_iter().flatten(), &presentation))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a document with `-o json` or `-o yaml`, else a message.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_result(document: &Value, message: impl std::fmt::Display, args: &OutputArgs) -> CommandResult {
    if args.is_document() {
        print_document(document, &args.presentation())?
    } else {
        print_line(message)?
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a warning to stderr.
pub fn print_warning(warning: &str) {
    // If stderr is closed, the message has no destination.
    let _closed = writeln!(std::io::stderr(), "warning: {}", visible_text(warning));
}

/// Prints an error with its causes to stderr.
pub fn print_error(error: &anyhow::Error) {
    // If stderr is closed, the message has no destination.
    let _closed = writeln!(std::io::stderr(), "error: {}", visible_text(&format!("{error:#}")));
    if let Some(remedy) = remedy_of(error) {
        let _closed = writeln!(std::io::stderr(), "hint: {remedy}");
    }
}

/// Ends a command: writes what stdout has buffered, and prints an error with its causes to stderr. A stdout that was
/// closed is no error to print.
pub fn finish(result: CommandResult) -> ExitCode {
    let error = match result.and_then(|code| Ok(stdout().flush().map(|()| code)?)) {
        Ok(code) => return code,
        Err(error) => error,
    };
    if is_stdout_closed(&error) {
        return ExitCode::from(STDOUT_CLOSED);
    }
    print_error(&error);
    ExitCode::from(exit_code_of(&error))
}

/// Whether a command has ended because the reader of stdout has closed it.
pub fn is_stdout_closed(error: &anyhow::Error) -> bool {
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
