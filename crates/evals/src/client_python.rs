//! The Python interpreter with the client packages (DuckDB, deltalake, moto), which read the lake independently.

use std::process::Command;

use wardroom_testing::server::program;

/// Returns a command that runs the interpreter.
#[expect(clippy::disallowed_methods, reason = "independent readers are separate programs")]
pub(crate) fn python() -> Command {
    let mut python = Command::new(program("CLIENT_PYTHON"));
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME"));
    python.env("PYTHONPATH", program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES"));
    python
}
