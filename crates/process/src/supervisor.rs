//! The supervisor starts the server and the executor, forwards signals, restarts the executor if it exits, and starts
//! backups when they are due.
//!
//! An executor that cannot start is not started over and over: one that rejects its configuration is started again when
//! the file changes, and any other after a delay that doubles.
//!
//! It parses no untrusted input and holds no secrets. If the server exits, the supervisor exits too, so that an init
//! system can apply its restart policy. Children are killed with the supervisor (`PR_SET_PDEATHSIG`).

mod executor_process;

use std::io::{Error, Result};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::heap;
use executor_process::ExecutorProcess;

/// Exit code of a server that requests a restart (`EX_TEMPFAIL` in sysexits.h).
pub const RESTART_EXIT_CODE: u8 = 75;
/// Exit code of an executor that rejects its configuration (`EX_CONFIG` in sysexits.h).
pub const CONFIG_EXIT_CODE: u8 = 78;
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

/// Runs both children until a signal arrives or the server exits. Returns the exit code.
/// `server_arguments` make this binary the server.
///
/// # Errors
/// Returns an error if a process cannot be started, or the executor's configuration is inside the data folder.
pub fn supervise(
    server_arguments: &[String],
    data: &Path,
    executor_config: Option<&Path>,
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
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let mut executor = executor_config.map(|config| ExecutorProcess::start(data, config)).transpose()?;
    let mut server_child = start("server", server_arguments, &[])?;
    if let Some(due_backup) = due_backup {
        // The thread ends with the process. A backup in progress then stays incomplete and is removed by the next one.
        std::thread::Builder::new().name("backup".into()).spawn(move || run_backups(&due_backup))?;
    }
    loop {
        match signals.wait()? {
            Signal::SIGTERM | Signal::SIGINT => {
                let code = stop(&mut server_child);
                if let Some(executor) = executor {
                    executor.kill();
                }
                return Ok(code);
            }
            _ => {
                if let Ok(Some(status)) = server_child.try_wait() {
                    if status.code() != Some(RESTART_EXIT_CODE.into()) {
                        if let Some(executor) = executor {
                            executor.kill();
                        }
                        return Ok(status.code().filter(|code| *code != 0).unwrap_or(1));
                    }
                    server_child = start("server", server_arguments, &[])?;
                }
                // One signal may stand for several exits.
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
            let result = start("backup", &arguments, &[]).and_then(|mut child| child.wait());
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

/// Starts this binary with other arguments. A non-empty `inherited` limits the environment to these variables.
#[expect(
    clippy::disallowed_methods,
    reason = "the supervisor starts processes and passes on selected environment variables"
)]
fn start(process: &'static str, arguments: &[String], inherited: &[&str]) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    if inherited.is_empty() {
        for setting in heap::ALLOCATOR_SETTINGS {
            if std::env::var_os(setting.variable).is_none() {
                command.env(setting.variable, setting.value);
            }
        }
    } else {
        command.env_clear();
        for name in inherited {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
    }
    command.spawn().map_err(|error| Error::new(error.kind(), format!("cannot start {process}: {error}")))
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

fn kill_and_wait(child: &mut Child) {
    signal(child, Signal::SIGKILL);
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "waiting for the child failed");
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(child.id() as i32), signal) {
        tracing::debug!(%error, "child has already exited");
    }
}
