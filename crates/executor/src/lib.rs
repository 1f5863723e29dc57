//! The executor: a separate process that holds the credentials and verifies everything itself (ADR 012).
//!
//! ```text
//! authorize: signed by an approver? hash as approved? not expired? not used? ─► ledger
//! start:     authorized? not stopped? ─► a thread: target unchanged? policy? ─► ledger ─► adapter ─► ledger
//! status:    running (with progress) or done
//! after a crash: started but not finished ─► probe first; an unknown outcome is never retried
//! ```
//!
//! Nothing waits for a target: actions of minutes run beside each other, one on each target, and are asked for.
//!
//! The process is not dumpable, exits with its parent, and holds a lock so that only one runs per data folder.
//! It does not link the state store: its only persistent state is the ledger.

#![forbid(unsafe_code)]

mod approval;
mod audit_key;
mod audit_object_store;
mod audit_publisher;
mod audit_signing;
mod client;
mod config;
mod issuer_keys;
mod ledger;
mod plan_record;
mod policy_check;
mod policy_file;
mod protocol;
mod refusal;
mod service;
mod tool_commands;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_process::sandbox::Sandbox;
use wardroom_tools::programs::{LocalPrograms, ToolRunner};
use wardroom_traces::ContinuedTrace;

use protocol::{MAX_MESSAGE_BYTES, ReceivedRequest, executor_folder};
use service::Service;

pub use approval::signer::{ApprovalSigner, NewKey, create_key};
pub use audit_key::{PRIVATE_KEY_FILE, is_signature_valid, read_public_key};
pub use audit_object_store::ObjectStoreSigning;
pub use audit_publisher::{HeadDestination, HeadMethod};
pub use audit_signing::{AuditEvidence, accept_audit_log, audit_evidence, has_signing_key, public_key_file};
pub use client::{ExecutorClient, ExecutorUnavailable};
pub use config::ExecutorConfig;
pub use protocol::{SocketPathTooLong, check_socket_path, request_stop, socket_path};
pub use tool_commands::{describe_tool, dry_run_tool, list_tools};

/// Interval between checks whether the parent is still running.
const PARENT_POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Maximum number of connections at the same time; more are closed without a response.
const MAX_CONNECTIONS: usize = 128;
/// Time in which the next part of a request must arrive, and of a response be taken.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be served.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(20);
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
    /// A call of a tool is not valid, or its target does not respond.
    #[error("{0}")]
    Tool(String),
    /// Another executor is running on this data folder.
    #[error("another executor holds {0}")]
    Locked(String),
}

/// Checks the executor's configuration file as the executor would at its start.
///
/// # Errors
/// Returns an error that names the field, the reason and the remedy.
pub fn check_config(file: &Path) -> Result<(), ExecutorError> {
    ExecutorConfig::load(file).map(drop).map_err(ExecutorError::Config)
}

/// Serves requests until the parent process exits.
///
/// # Errors
/// Returns an error if the executor cannot start; see [`ExecutorError`].
pub fn run(data: &Path, config: &Path) -> Result<(), ExecutorError> {
    harden_process()?;
    // Loaded here to report mistakes at startup; loaded again at every use.
    let loaded = ExecutorConfig::load(config).map_err(ExecutorError::Config)?;
    let lock_path = data.join("executor.lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path)?;
    let _lock = acquire_lock(file).ok_or_else(|| ExecutorError::Locked(lock_path.display().to_string()))?;
    let mut service = Service::open(&executor_folder(data), config)?;
    if !loaded.programs().is_empty() {
        service.programs = Arc::new(ToolRunner::start(config)?);
    }
    let socket = socket_path(data);
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    // Before the first thread: only threads that are started from here on are restricted, too.
    let published = loaded.audit_heads.iter().filter_map(|place| place.file.as_ref()?.parent());
    service.confinement = Sandbox::executor(data, config).with_writable(published).enter();
    std::thread::spawn(exit_with_parent);
    let service = Arc::new(service);
    service.recover_interrupted();
    let publishing = Arc::clone(&service);
    std::thread::Builder::new().name("audit-heads".into()).spawn(move || {
        let last_head = || Some((publishing.last_audit_head()?, publishing.context()));
        audit_publisher::run(&loaded.audit_heads, &publishing.publication, last_head);
    })?;
    tracing::info!("executor ready");
    serve(&listener, &service)
}

/// Runs the tool runner: starts programs for the executor, over the socket on its standard input, until that exits.
///
/// # Errors
/// Returns an error if the standard input is no socket.
pub fn run_tool_runner(config: &Path) -> Result<(), ExecutorError> {
    // Not ended with the executor: what has begun is brought to its end.
    nix::sys::prctl::set_dumpable(false).map_err(std::io::Error::from)?;
    let programs = || ExecutorConfig::load(config).map(|config| LocalPrograms::new(config.programs()));
    Ok(wardroom_tools::programs::serve(programs)?)
}

/// Serves each connection on a thread. Does not return.
fn serve(listener: &UnixListener, service: &Arc<Service>) -> Result<(), ExecutorError> {
    // Each connection has a clone.
    let connections = Arc::new(());
    for stream in listener.incoming() {
        let accepted = stream.and_then(|stream| {
            if Arc::strong_count(&connections) > MAX_CONNECTIONS {
                return Err(std::io::Error::other(format!("there are {MAX_CONNECTIONS} connections already")));
            }
            let (service, connection) = (Arc::clone(service), Arc::clone(&connections));
            std::thread::Builder::new().name("request".into()).spawn(move || {
                if let Err(error) = handle_connection(&service, stream) {
                    tracing::debug!(%error, "executor connection failed");
                }
                drop(connection);
            })
        });
        if let Err(error) = accepted {
            tracing::warn!(%error, "a connection to the executor was closed");
            std::thread::sleep(ACCEPT_RETRY_INTERVAL);
        }
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

/// Returns the span of a request in the trace of who asks; none for those that no one's request has caused.
fn request_span(traceparent: Option<String>, operation: &str) -> tracing::Span {
    let Some(header) = traceparent else { return tracing::Span::none() };
    let trace = ContinuedTrace::of(Some(&header));
    trace.span(|| tracing::info_span!("executor request", trace_id = %trace.context.trace_id(), operation))
}

/// Handles one request: a JSON line in, a JSON line out.
fn handle_connection(service: &Arc<Service>, stream: UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?.take(MAX_MESSAGE_BYTES)).read_line(&mut line)?;
    let response = match serde_json::from_str::<ReceivedRequest>(&line) {
        Ok(ReceivedRequest { deadline, traceparent, request }) => {
            let operation = client::operation_of(&request);
            request_span(traceparent, operation).in_scope(|| service.handle(request, deadline))
        }
        Err(error) => Response::Refused { code: RefusalCode::Invalid, detail: format!("request: {error}") },
    };
    let mut text = serde_json::to_string(&response)?;
    text.push('\n');
    (&stream).write_all(text.as_bytes())
}
