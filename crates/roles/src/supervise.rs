//! The supervisor: starts server and executor, passes signals on, starts the executor again if it dies.
//!
//! It parses no byte from outside and holds no secret. If the server ends, everything ends: whoever
//! started the supervisor decides what then. Children die with it (`PR_SET_PDEATHSIG`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::crash;

/// Time the server gets to drain.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the supervisor could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A process could not be started.
    #[error("cannot start {what}: {error}")]
    Start {
        /// Which.
        what: &'static str,
        /// The system's words.
        error: std::io::Error,
    },
    /// Signals cannot be waited for.
    #[error("signals: {0}")]
    Signals(#[from] nix::Error),
    /// The executor's file lies where the server may write.
    #[error("--executor-config {0} lies inside the data folder, which the server may read; put it elsewhere")]
    Exposed(PathBuf),
}

/// Runs both children until a signal comes or the server ends; the exit code to end with.
/// `server` are the arguments that make this binary the server.
///
/// # Errors
/// See [`SuperviseError`].
pub fn supervise(server: &[String], data: &Path, executor_config: Option<&Path>) -> Result<i32, SuperviseError> {
    let inside = |config: &Path| {
        let (config, data) = (config.canonicalize().ok(), data.canonicalize().ok());
        config.zip(data).is_some_and(|(config, data)| config.starts_with(data))
    };
    if let Some(config) = executor_config.filter(|config| inside(config)) {
        return Err(SuperviseError::Exposed(config.to_owned()));
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let executor = |config: &Path| start_executor(data, config);
    let mut executing = executor_config.map(executor).transpose()?;
    let mut serving = start("server", server, &[])?;
    loop {
        match signals.wait()? {
            Signal::SIGTERM | Signal::SIGINT => {
                let code = stop(&mut serving);
                if let Some(mut child) = executing {
                    end(&mut child);
                }
                return Ok(code);
            }
            _ => {
                if let Ok(Some(status)) = serving.try_wait() {
                    if let Some(mut child) = executing {
                        end(&mut child);
                    }
                    return Ok(status.code().filter(|code| *code != 0).unwrap_or(1));
                }
                let died = executing.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
                if let Some(config) = executor_config.filter(|_| died) {
                    tracing::error!("executor died; starting it again");
                    std::thread::sleep(Duration::from_millis(100));
                    executing = Some(executor(config)?);
                }
            }
        }
    }
}

/// The executor's environment is its own: empty, but for the aim of a crash test.
fn start_executor(data: &Path, config: &Path) -> Result<Child, SuperviseError> {
    let arguments = ["executor".to_owned(), "--data".to_owned(), data.display().to_string()];
    let more = ["--executor-config".to_owned(), config.display().to_string()];
    let arguments: Vec<String> = arguments.into_iter().chain(more).collect();
    start("executor", &arguments, crash::HANDED_ON)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the supervisor's job is to start processes; it hands on variables by name"
)]
fn start(what: &'static str, arguments: &[String], only: &[&str]) -> Result<Child, SuperviseError> {
    let failed = |error| SuperviseError::Start { what, error };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(arguments);
    if only.is_empty() {
        // Batches are made on one thread and freed on another: with an arena for each, glibc keeps a tenth more memory.
        command.env("MALLOC_ARENA_MAX", std::env::var("MALLOC_ARENA_MAX").unwrap_or_else(|_| "2".into()));
    } else {
        command.env_clear();
        for name in only {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
    }
    command.spawn().map_err(failed)
}

/// Asks the server to drain, and waits for it.
fn stop(child: &mut Child) -> i32 {
    signal(child, Signal::SIGTERM);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code().unwrap_or(1);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    tracing::error!("the server did not drain in time; killing it");
    end(child);
    1
}

fn end(child: &mut Child) {
    signal(child, Signal::SIGKILL);
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "child could not be waited for");
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(child.id() as i32), signal) {
        tracing::debug!(%error, "child is gone already");
    }
}
