//! Writes the first administrator's token to a file, or announces it on stdout.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::serve_error::{ServeError, io_error};

/// Creates a file that only its owner can read. It is opened before the sandbox is set up and written later; existing
/// content is kept.
///
/// # Errors
/// Returns an error if the file cannot be opened.
pub(super) fn open_secret_file(path: &Path) -> Result<File, ServeError> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| io_error(format!("open {}", path.display()), error))
}

/// Writes the token to the file; without a file, announces it.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(super) fn deliver_first_token(
    token: Option<String>,
    file: Option<File>,
    url: &str,
    announce: &mut impl FnMut(String),
) -> Result<(), ServeError> {
    let Some(token) = token else { return Ok(()) };
    if let Some(mut file) = file {
        let written = writeln!(file, "{token}").and_then(|()| file.sync_all());
        return written.map_err(|error| io_error("write --admin-token-file", error));
    }
    announce(format!("admin token (shown once): {token}"));
    announce(format!(
        "to send from Prometheus, run `wardroom token create --data … --principal prometheus --role sender` and add:\n\
         remote_write:\n  - url: {url}/api/v1/write\n    authorization:\n      credentials_file: /path/to/token"
    ));
    Ok(())
}
