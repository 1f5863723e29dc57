//! The supervisor starts the server, its query workers and the executor, forwards signals, restarts workers and
//! executor if they exit, and starts backups when they are due.
//!
//! An executor that cannot start is not started over and over: one that rejects its configuration is started again when
//! the file changes, and any other after a delay that doubles.
//!
//! It parses no untrusted input and holds no secrets. If the server exits, the supervisor exits too, so that an init
//! system can apply its restart policy. Children are killed with the supervisor (`PR_SET_PDEATHSIG`).

mod child_process;
mod executor_process;
mod query_workers;

use std::io::{Error, Result};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use child_process::{kill_and_wait, signal, start};
use executor_process::ExecutorProcess;
use query_workers::QueryWorkers;

pub use child_process::CONFIG_EXIT_CODE;
pub use query_workers::QueryWorkerOptions;

/// Exit code of a server that requests a restart (`EX_TEMPFAIL` in sysexits.h).
pub const RESTART_EXIT_CODE: u8 = 75;
/// Delay of the first backup after the start, and the first backoff after a failed one.
const MIN_BACKUP_DELAY: Duration = Duration::from_secs(10);
/// Maximum backoff after failed backups: each may copy much data before it fails.
const MAX_BACKUP_BACKOFF: Duration = Duration::from_secs(3600);
/// Interval between two checks whether a backup is due.
const BACKUP_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Time the server gets to drain before it is killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two checks whether the server has exited.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the arguments that make this binary back up the data folder, if a backup is due.
pub type DueBackup = dyn Fn() -> Option<Vec<String>> + Send;

/// The server process, with its query workers.
struct ServerProcess {
    child: Child,
    workers: Option<QueryWorkers>,
}

impl ServerProcess {
    fn start(arguments: &[String], workers: Option<&QueryWorkerOptions>) -> Result<Self> {
        let Some(options) = workers else {
            return Ok(Self { child: start("server", arguments, &[], Stdio::null())?, workers: None });
        };
        let (workers, control_socket) = QueryWorkers::new(options)?;
        let child = start("server", arguments, &[], control_socket.into())?;
        Ok(Self { child, workers: Some(workers) })
    }

    /// Kills the query workers of a server that has ended.
    fn kill_workers(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.kill();
        }
    }
}

/// Runs the children until a signal arrives or the server exits. Returns the exit code.
/// `server_arguments` make this binary the server.
///
/// # Errors
/// Returns an error if a process cannot be started, or the executor's configuration is inside the data folder.
pub fn supervise(
    server_arguments: &[String],
    data: &Path,
    executor_config: Option<&Path>,
    query_workers: Option<&QueryWorkerOptions>,
    due_backup: Option<Box<DueBackup>>,
) -> Result<i32> {
    let is_inside_data = |config: &Path| {
        let (config, data) = (config.canonicalize().ok(), data.canonicalize().ok());
        config.zip(data).is_some_and(|(config, data)| config.starts_with(data))
    };
    if let Some(config) = executor_config.filter(|config| is_inside_data(config)) {
        return Err(Error::other(format!(
            "--executor-config {} lies inside the data folder, which the server may read; put it elsewhere",
            config.display()
        )));
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let mut executor = executor_config.map(|config| ExecutorProcess::start(data, config)).transpose()?;
    let mut server = ServerProcess::start(server_arguments, query_workers)?;
    if let Some(due_backup) = due_backup {
        // The thread ends with the process. A backup in progress then stays incomplete and is removed by the next one.
        std::thread::Builder::new().name("backup".into()).spawn(move || run_backups(&due_backup))?;
    }
    loop {
        match signals.wait()? {
            Signal::SIGTERM | Signal::SIGINT => {
                let code = stop(&mut server.child);
                server.kill_workers();
                if let Some(executor) = executor {
                    executor.kill();
                }
                return Ok(code);
            }
            // The server looks for new certificates.
            Signal::SIGHUP => signal(&server.child, Signal::SIGHUP),
            _ => {
                if let Ok(Some(status)) = server.child.try_wait() {
                    server.kill_workers();
                    if status.code() != Some(RESTART_EXIT_CODE.into()) {
                        if let Some(executor) = executor {
                            executor.kill();
                        }
                        return Ok(status.code().filter(|code| *code != 0).unwrap_or(1));
                    }
                    server = ServerProcess::start(server_arguments, query_workers)?;
                }
                // One signal may stand for several exits.
                if let Some(workers) = &mut server.workers {
                    workers.poll();
                }
                if let Some(executor) = &mut executor {
                    executor.poll();
                }
            }
        }
    }
}

/// Starts a backup whenever one is due. Does not return.
fn run_backups(due_backup: &DueBackup) {
    // The initial delay lets a new server create its data folder.
    let (mut wait, mut backoff) = (MIN_BACKUP_DELAY, MIN_BACKUP_DELAY);
    loop {
        std::thread::sleep(wait);
        wait = BACKUP_CHECK_INTERVAL;
        if let Some(arguments) = due_backup() {
            let result = start("backup", &arguments, &[], Stdio::null()).and_then(|mut child| child.wait());
            if result.as_ref().is_ok_and(ExitStatus::success) {
                backoff = MIN_BACKUP_DELAY;
            } else {
                wait = backoff;
                backoff = (backoff * 2).min(MAX_BACKUP_BACKOFF);
            }
            match result {
                Ok(status) if status.success() => tracing::info!("backup completed"),
                Ok(status) => tracing::error!(%status, "backup failed; retrying"),
                Err(error) => tracing::error!(%error, "backup failed; retrying"),
            }
        }
    }
}

/// Lets the server drain, and kills it after [`SHUTDOWN_TIMEOUT`]. Returns its exit code.
fn stop(child: &mut Child) -> i32 {
    signal(child, Signal::SIGTERM);
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code().unwrap_or(1);
        }
        std::thread::sleep(EXIT_POLL_INTERVAL);
    }
    tracing::error!("server did not drain before the timeout; killing it");
    kill_and_wait(child);
    1
}
