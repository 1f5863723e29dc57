//! The transport between server and executor: a Unix socket in the data folder, one JSON line per message.

use std::path::{Path, PathBuf};

use wardroom_process::sandbox::EXECUTOR_FOLDER;

/// Maximum length of a message, in bytes: an entry of the audit log must fit, whatever telemetry it quotes.
pub(crate) const MAX_MESSAGE_BYTES: u64 = 8 << 20;

/// Returns the executor's own folder in a data folder: its ledger and the key of the audit log.
pub(crate) fn executor_folder(data: &Path) -> PathBuf {
    data.join(EXECUTOR_FOLDER)
}

/// Returns the path of the executor's socket in a data folder.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("executor.sock")
}

/// Maximum length of a socket's path, in bytes: `sun_path` in `struct sockaddr_un`, without its final zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The data folder's path is too long for the executor's socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--data {}: the path of the executor's socket in it has {length} bytes, and the operating system allows \
     {MAX_SOCKET_PATH_BYTES}; use a shorter path, such as a relative one or a symbolic link to the folder",
    .data.display()
)]
pub struct SocketPathTooLong {
    data: PathBuf,
    length: usize,
}

/// Checks that the executor's socket in a data folder can be bound.
///
/// # Errors
/// Returns an error if its path is too long.
pub fn check_socket_path(data: &Path) -> Result<(), SocketPathTooLong> {
    let length = socket_path(data).as_os_str().len();
    if length > MAX_SOCKET_PATH_BYTES { Err(SocketPathTooLong { data: data.to_owned(), length }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn paths_are_accepted_up_to_what_the_operating_system_allows() {
        let dir = tempfile::tempdir().unwrap();
        let suffix = "/executor.sock".len();
        for (length, accepted) in [(MAX_SOCKET_PATH_BYTES, true), (MAX_SOCKET_PATH_BYTES + 1, false)] {
            let name = "d".repeat(length - suffix - dir.path().as_os_str().len() - 1);
            let data = dir.path().join(name);
            std::fs::create_dir(&data).unwrap();
            assert_eq!(check_socket_path(&data).is_ok(), accepted, "{length}");
            assert_eq!(UnixListener::bind(socket_path(&data)).is_ok(), accepted, "{length}");
        }
    }
}
