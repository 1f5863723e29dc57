//! The transport between server and executor: a Unix socket in the data folder, one JSON line per message.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_domain::executor::{RefusalCode, Request};
use wardroom_domain::{Principal, Timestamp};
use wardroom_process::clock;
use wardroom_process::sandbox::EXECUTOR_FOLDER;

/// Maximum length of a message, in bytes: an entry of the audit log must fit, whatever telemetry it quotes.
pub(crate) const MAX_MESSAGE_BYTES: u64 = 8 << 20;

/// A request as it is sent: with the time until which the executor may begin with it.
#[derive(Debug, Serialize)]
pub(crate) struct SentRequest<'a> {
    /// When the executor must have begun.
    pub(crate) deadline: Timestamp,
    /// The W3C trace context of who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
    #[serde(flatten)]
    pub(crate) request: &'a Request,
}

/// A request as it is received.
#[derive(Debug, Deserialize)]
pub(crate) struct ReceivedRequest {
    #[serde(default)]
    pub(crate) deadline: Deadline,
    /// The W3C trace context of who asks.
    #[serde(default)]
    pub(crate) traceparent: Option<String>,
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// When the executor must have begun with a request; by default at any time.
///
/// Problem: an executor that was stopped or overloaded reads a request when the server has told its caller long ago
/// that nothing came back. Guarantee: then nothing is done.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Deadline(pub(crate) Option<Timestamp>);

impl Deadline {
    /// Refuses what begins too late. Called at the start and again after each wait, immediately before an effect.
    pub(crate) fn check(self) -> Result<(), (RefusalCode, String)> {
        match self.0 {
            Some(deadline) if deadline <= clock::now() => {
                let detail = format!("the request had to begin before {deadline}; nothing was done, repeat it");
                Err((RefusalCode::Unavailable, detail))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the executor's own folder in a data folder: its ledger and the key of the audit log.
pub(crate) fn executor_folder(data: &Path) -> PathBuf {
    data.join(EXECUTOR_FOLDER)
}

/// Name of the file in the executor's folder that requests a stop of all actions.
pub(crate) const STOP_FILE: &str = "stop-all.json";

/// Requests a stop of all actions through a file of the data folder, which the executor looks at before each effect:
/// for a server that does not respond.
///
/// # Errors
/// Returns an error if there is no data folder, or the file cannot be written.
pub fn request_stop(data: &Path, by: &Principal, reason: &str) -> std::io::Result<()> {
    let folder = executor_folder(data);
    std::fs::create_dir_all(&folder)?;
    let (path, unfinished) = (folder.join(STOP_FILE), folder.join(format!("{STOP_FILE}.new")));
    std::fs::write(&unfinished, serde_json::json!({ "by": by, "reason": reason }).to_string())?;
    std::fs::File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, &path)
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
    fn a_request_is_received_with_its_deadline_and_nothing_that_is_unknown() {
        let request = Request::Execute { plan_sha256: "a".to_owned(), step: 0 };
        let deadline = Timestamp::parse("2026-11-21T14:00:00Z").unwrap();
        let sent = serde_json::to_string(&SentRequest { deadline, traceparent: None, request: &request }).unwrap();
        let received: ReceivedRequest = serde_json::from_str(&sent).unwrap();
        assert_eq!(received.deadline.0, Some(deadline));
        assert!(matches!(received.request, Request::Execute { plan_sha256, step: 0 } if plan_sha256 == "a"));
        let received = serde_json::from_str::<ReceivedRequest>;
        assert!(received(r#"{"op":"execute","plan_sha256":"a"}"#).unwrap().deadline.0.is_none());
        for wrong in [
            r#"{"op":"execute","plan_sha256":"a","until":1}"#,
            r#"{"op":"execute","plan_sha256":"a","deadline":"soon"}"#,
            r#"{"deadline":"2026-11-21T14:00:00Z"}"#,
        ] {
            assert!(received(wrong).is_err(), "{wrong}");
        }
    }

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
