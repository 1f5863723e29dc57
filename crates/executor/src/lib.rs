//! The executor: a process of its own that alone holds credentials and checks everything for itself
//! (decision D12).
//!
//! ```text
//! authorise: token is an approver's? plan hashes to what was approved? not expired? not used? ─► ledger
//! execute:   authorised? not expired? target as the plan found it? ─► ledger ─► adapter ─► ledger
//! after a crash: started but not finished ─► probe first; unknown goes to a person, never to a retry
//! ```
//!
//! It is undumpable, dies with its parent, and holds a lock so that there is never a second one.

#![forbid(unsafe_code)]

mod client;
mod config;
mod ledger;
mod service;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use wardroom_domain::executor::{RefusalCode, Request, Response};

use service::Service;

pub use client::{ExecutorClient, Unreachable, socket_path};
pub use config::ExecutorConfig;

/// Why the executor could not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The configuration cannot be used.
    #[error("executor configuration: {0}")]
    Config(String),
    /// A file or the socket.
    #[error("executor: {0}")]
    Io(#[from] std::io::Error),
    /// Another executor runs on this data folder.
    #[error("another executor holds {0}")]
    Locked(String),
}

/// Runs until the parent is gone.
///
/// # Errors
/// See [`ExecutorError`].
pub fn run(data: &Path, config: &Path) -> Result<(), ExecutorError> {
    harden()?;
    // Read once now so that a mistake shows at the start; read again at every use.
    ExecutorConfig::load(config).map_err(ExecutorError::Config)?;
    let lock_path = data.join("executor.lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path)?;
    let _lock = lock(file).ok_or_else(|| ExecutorError::Locked(lock_path.display().to_string()))?;
    let service = Arc::new(Service::open(&data.join("executor"), config)?);
    let socket = socket_path(data);
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    std::thread::spawn(die_with_parent);
    tracing::info!("executor ready");
    for stream in listener.incoming() {
        let (stream, service) = (stream?, Arc::clone(&service));
        std::thread::spawn(move || {
            if let Err(error) = answer(&service, stream) {
                tracing::debug!(%error, "executor connection ended");
            }
        });
    }
    Ok(())
}

/// Nobody may look into this process, and it does not outlive its parent.
fn harden() -> std::io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

/// The death signal can be missed if the parent went before it was set.
fn die_with_parent() {
    let parent = nix::unistd::getppid();
    loop {
        if nix::unistd::getppid() != parent || parent.as_raw() == 1 {
            std::process::exit(0);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The predecessor may still be on its way out.
fn lock(mut file: std::fs::File) -> Option<Flock<std::fs::File>> {
    for _ in 0..50 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((back, _)) => file = back,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn answer(service: &Service, stream: UnixStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?.take(1 << 20)).read_line(&mut line)?;
    let response = match serde_json::from_str::<Request>(&line) {
        Ok(request) => service.answer(request),
        Err(error) => Response::Refused { code: RefusalCode::Invalid, detail: format!("request: {error}") },
    };
    let mut text = serde_json::to_string(&response)?;
    text.push('\n');
    (&stream).write_all(text.as_bytes())
}
