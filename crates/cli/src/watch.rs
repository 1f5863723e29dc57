//! `--watch`: asks again and again, and shows what has changed.
//!
//! A terminal shows the present state, each time from its top. A pipe gets each row when it is new or has changed, so
//! that a program reads a stream; it ends when its reader does.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::columns::Column;
use crate::exit_code::{STDOUT_CLOSED, is_transient};
use crate::output::{CommandResult, print_document, print_prepared, print_warning, stdout};
use crate::presentation::{OutputArgs, Presentation};
use crate::table_layout::table_lines;

/// Moves a terminal's cursor to the top, and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Whether to go on.
#[derive(Clone, Copy, Debug, Args)]
pub struct WatchArgs {
    /// Ask again every SECONDS (2 by default), and show what has changed, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// What is watched.
#[derive(Debug)]
pub struct Watched<'a> {
    /// Name of the list of rows in the document.
    pub rows: &'a str,
    /// JSON pointer to what identifies a row.
    pub id: &'a str,
    /// The columns of a table.
    pub columns: &'a [Column],
}

impl WatchArgs {
    /// Prints a list once, or what changes of it until Ctrl-C or until stdout is closed.
    ///
    /// # Errors
    /// Returns an error if a request fails, unless the server is only unavailable and has answered before.
    pub fn print_list(
        self,
        fetch: impl Fn() -> anyhow::Result<Value>,
        watched: &Watched<'_>,
        args: &OutputArgs,
    ) -> CommandResult {
        let mut known = BTreeMap::new();
        self.repeat(fetch, |document, is_first| {
            let presentation = args.presentation();
            let all = || document[watched.rows].as_array().into_iter().flatten();
            if self.watch.is_none() || presentation.is_terminal {
                if self.watch.is_some() {
                    write!(stdout(), "{CLEAR}")?;
                }
                return match args.is_document() {
                    true => print_document(document, &presentation),
                    false => Ok(print_prepared(&table_lines(watched.columns, all(), &presentation))?),
                };
            }
            let changed: Vec<&Value> = all().filter(|row| has_changed(&mut known, row, watched.id)).collect();
            print_changed(&changed, watched.columns, is_first, args)
        })
    }

    /// Prints one document once, or each time that it has changed.
    ///
    /// # Errors
    /// As [`WatchArgs::print_list`].
    pub fn print_one(
        self,
        fetch: impl Fn() -> anyhow::Result<Value>,
        mut print: impl FnMut(&Value, &Presentation) -> anyhow::Result<()>,
        args: &OutputArgs,
    ) -> CommandResult {
        let mut shown = Value::Null;
        self.repeat(fetch, |document, _| {
            let presentation = args.presentation();
            if *document == shown && !presentation.is_terminal {
                return Ok(());
            }
            shown.clone_from(document);
            if self.watch.is_some() && presentation.is_terminal {
                write!(stdout(), "{CLEAR}")?;
            }
            if args.is_document() { print_document(document, &presentation) } else { print(document, &presentation) }
        })
    }

    /// Calls `show` once, or again and again. The second argument is whether it is the first time.
    fn repeat(
        self,
        fetch: impl Fn() -> anyhow::Result<Value>,
        mut show: impl FnMut(&Value, bool) -> anyhow::Result<()>,
    ) -> CommandResult {
        show(&fetch()?, true)?;
        let mut is_warned = false;
        while let Some(seconds) = self.watch {
            stdout().flush()?;
            if !wait(Duration::from_secs(seconds)) {
                return Ok(ExitCode::from(STDOUT_CLOSED));
            }
            match fetch() {
                Ok(document) => {
                    is_warned = false;
                    show(&document, false)?;
                }
                Err(error) if is_transient(&error) => {
                    if !is_warned {
                        print_warning(&format!("{error:#}; asking again every {seconds} s"));
                    }
                    is_warned = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits. Returns false at once when the reader of stdout closes it: there may be nothing to write for long.
fn wait(duration: Duration) -> bool {
    let stdout = std::io::stdout();
    let mut descriptors = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let timeout = PollTimeout::try_from(duration).unwrap_or(PollTimeout::MAX);
    match poll(&mut descriptors, timeout) {
        Ok(_) => !descriptors[0].revents().is_some_and(|found| found.contains(PollFlags::POLLERR)),
        // A signal that is not the end of the program.
        Err(_) => true,
    }
}

/// Whether a row is new or has changed; remembers it.
fn has_changed(known: &mut BTreeMap<String, Value>, row: &Value, id: &str) -> bool {
    let id = row.pointer(id).map(Value::to_string).unwrap_or_default();
    if known.get(&id) == Some(row) {
        return false;
    }
    known.insert(id, row.clone());
    true
}

fn print_changed(rows: &[&Value], columns: &[Column], is_first: bool, args: &OutputArgs) -> anyhow::Result<()> {
    let mut presentation = args.presentation();
    if args.is_document() {
        return rows.iter().try_for_each(|row| print_document(row, &presentation));
    }
    presentation.has_header &= is_first;
    Ok(print_prepared(&table_lines(columns, rows.iter().copied(), &presentation))?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_rows_that_are_new_or_changed_are_shown_again() {
        let mut known = BTreeMap::new();
        let [open, closed, other] = [("INC-1", "open"), ("INC-1", "closed"), ("INC-2", "open")]
            .map(|(id, state)| json!({ "id": id, "state": state }));
        let rows = [&open, &open, &other, &closed, &closed, &other];
        assert_eq!(rows.map(|row| has_changed(&mut known, row, "/id")), [true, false, true, true, false, false]);
    }
}
