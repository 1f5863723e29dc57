//! The executor: a separate process that holds the credentials and verifies everything itself (ADR 012).
//!
//! ```text
//! authorize: valid approver token? hash as approved? not expired? not used? ─► ledger
//! execute:   authorized? not expired? target unchanged since the plan? ─► ledger ─► adapter ─► ledger
//! after a crash: started but not finished ─► probe first; an unknown outcome is never retried
//! ```
//!
//! The process is not dumpable, exits with its parent, and holds a lock so that only one runs per data folder.
//! It does not link the state store: its only persistent state is the ledger.

#![forbid(unsafe_code)]

mod client;
mod config;
mod ledger;
mod protocol;
mod service;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use wardroom_domain::executor::{RefusalCode, Request, Response};

use protocol::MAX_MESSAGE_BYTES;
use service::Service;

pub use client::{ExecutorClient, ExecutorUnavailable};
pub use config::ExecutorConfig;
pub use protocol::{SocketPathTooLong, check_socket_path, socket_path};

/// Interval between checks whether the parent is still running.
const PARENT_POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Attempts to lock before another executor is reported.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Why the executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The configuration is invalid.
    #[error("executor configuration: {0}")]
    Config(String),
    /// A file or the socket cannot be used.
    #[error("executor: {0}")]
    Io(#[from] std::io::Error),
    /// Another executor is running on this data folder.
    #[error("another executor holds {0}")]
    Locked(String),
}

/// Serves requests until the parent process exits.
///
/// # Errors
/// Returns an error if the executor cannot start; see [`ExecutorError`].
pub fn run(data: &Path, config: &Path) -> Result<(), ExecutorError> {
    harden_process()?;
    // Loaded here to report mistakes at startup; loaded again at every use.
    ExecutorConfig::load(config).map_err(ExecutorError::Config)?;
    let lock_path = data.join("executor.lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path)?;
    let _lock = acquire_lock(file).ok_or_else(|| ExecutorError::Locked(lock_path.display().to_string()))?;
    let service = Arc::new(Service::open(&data.join("executor"), config)?);
    let socket = socket_path(data);
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    std::thread::spawn(exit_with_parent);
    tracing::info!("executor ready");
    for stream in listener.incoming() {
        let (stream, service) = (stream?, Arc::clone(&service));
        std::thread::spawn(move || {
            if let Err(error) = handle_connection(&service, stream) {
                tracing::debug!(%error, "executor connection failed");
            }
        });
    }
    Ok(())
}

/// Makes the process not dumpable, so that other processes cannot inspect it, and ties it to its parent.
fn harden_process() -> std::io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

/// Exits when the parent has exited. The parent death signal is missed if the parent exits before it is set.
fn exit_with_parent() {
    let parent = nix::unistd::getppid();
    loop {
        if nix::unistd::getppid() != parent || parent.as_raw() == 1 {
            std::process::exit(0);
        }
        std::thread::sleep(PARENT_POLL_INTERVAL);
    }
}

/// Locks the file, waiting for the previous executor to exit.
fn acquire_lock(mut file: std::fs::File) -> Option<Flock<std::fs::File>> {
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((returned, _)) => file = returned,
        }
        std::thread::sleep(LOCK_RETRY_INTERVAL);
    }
    None
}

/// Handles one request: a JSON line in, a JSON line out.
fn handle_connection(service: &Service, stream: UnixStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?.take(MAX_MESSAGE_BYTES)).read_line(&mut line)?;
    let response = match serde_json::from_str::<Request>(&line) {
        Ok(request) => service.handle(request),
        Err(error) => Response::Refused { code: RefusalCode::Invalid, detail: format!("request: {error}") },
    };
    let mut text = serde_json::to_string(&response)?;
    text.push('\n');
    (&stream).write_all(text.as_bytes())
}
