//! The transport between server and executor: a Unix socket in the data folder, one JSON line per message.

use std::path::{Path, PathBuf};

/// Maximum length of a message.
pub(crate) const MAX_MESSAGE_BYTES: u64 = 1 << 20;

/// Returns the path of the executor's socket in a data folder.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("executor.sock")
}
