//! Progress output.

/// Prints a line of progress to standard error.
#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
pub(crate) fn print_progress(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
