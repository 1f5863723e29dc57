//! The supervisor: starts server and executor, passes signals on, starts the executor again if it dies, and has backups made
//! when they are due.
//!
//! It parses no byte from outside and holds no secret. If the server ends, everything ends: whoever
//! started the supervisor decides what then. Children die with it (`PR_SET_PDEATHSIG`).

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use wardroom_roles::crash;

use crate::backup::Daily;

/// A server that ends with this code is to be started again; others know it as `EX_TEMPFAIL` (sysexits.h).
pub(crate) const AGAIN: u8 = 75;
/// How long after the start a backup is made; after one that failed, too, and twice as long after each further one.
const SOON: Duration = Duration::from_secs(10);
/// The longest wait after backups that failed: each may copy much before it does.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often it is looked whether one is due.
const LATER: Duration = Duration::from_secs(60);
/// Time the server gets to drain.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs both children until a signal comes or the server ends; the exit code to end with.
/// `server` are the arguments that make this binary the server.
///
/// # Errors
/// A process cannot be started, or the executor's file lies where the server may read it.
pub(crate) fn supervise(
    server: &[String],
    data: &Path,
    executor_config: Option<&Path>,
    backups: Option<Daily>,
) -> anyhow::Result<i32> {
    let inside = |config: &Path| {
        let (config, data) = (config.canonicalize().ok(), data.canonicalize().ok());
        config.zip(data).is_some_and(|(config, data)| config.starts_with(data))
    };
    if let Some(config) = executor_config {
        ensure!(
            !inside(config),
            "--executor-config {} lies inside the data folder, which the server may read; put it elsewhere",
            config.display()
        );
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().context("signals")?;
    let executor = |config: &Path| start_executor(data, config);
    let mut executing = executor_config.map(executor).transpose()?;
    let mut serving = start("server", server, &[])?;
    if let Some(backups) = backups {
        // It ends with the process; a backup that is being made then is none.
        std::thread::Builder::new().name("backup".into()).spawn(move || keep_backups(&backups))?;
    }
    loop {
        match signals.wait().context("signals")? {
            Signal::SIGTERM | Signal::SIGINT => {
                let code = stop(&mut serving);
                if let Some(mut child) = executing {
                    end(&mut child);
                }
                return Ok(code);
            }
            _ => {
                if let Ok(Some(status)) = serving.try_wait() {
                    if status.code() == Some(AGAIN.into()) {
                        serving = start("server", server, &[])?;
                        continue;
                    }
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

/// Makes a backup whenever one is due, for ever.
fn keep_backups(backups: &Daily) {
    // Not at once: a server that starts makes the folder ready first.
    let (mut wait, mut failed) = (SOON, SOON);
    loop {
        std::thread::sleep(wait);
        wait = LATER;
        if backups.due() {
            let done = start("backup", &backups.arguments(), &[]).and_then(|mut child| Ok(child.wait()?));
            if done.as_ref().is_ok_and(ExitStatus::success) {
                failed = SOON;
            } else {
                wait = failed;
                failed = (failed * 2).min(LONGEST);
            }
            match done {
                Ok(status) if status.success() => tracing::info!("backup made"),
                Ok(status) => tracing::error!(%status, "no backup was made; it is tried again"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "no backup was made; it is tried again"),
            }
        }
    }
}

/// The executor's environment is its own: empty, but for the aim of a crash test.
fn start_executor(data: &Path, config: &Path) -> anyhow::Result<Child> {
    let arguments = ["executor".to_owned(), "--data".to_owned(), data.display().to_string()];
    let more = ["--executor-config".to_owned(), config.display().to_string()];
    let arguments: Vec<String> = arguments.into_iter().chain(more).collect();
    start("executor", &arguments, crash::HANDED_ON)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the supervisor's job is to start processes; it hands on variables by name"
)]
fn start(what: &'static str, arguments: &[String], only: &[&str]) -> anyhow::Result<Child> {
    let failed = || format!("cannot start {what}");
    let mut command = Command::new(std::env::current_exe().with_context(failed)?);
    command.args(arguments);
    if only.is_empty() {
        // Batches are made on one thread and freed on another: with an arena for each, glibc keeps a fifth more memory than with
        // one. Columns of a flush go back to the system at once; the bodies of requests do not. Huge pages where the system has
        // them to give: a request that comes to a quiet machine touches hundreds of pages, none of which a processor remembers.
        let settings = [
            ("MALLOC_ARENA_MAX", "1"),
            ("MALLOC_MMAP_THRESHOLD_", "524288"),
            ("MALLOC_TRIM_THRESHOLD_", "1048576"),
            ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
        ];
        for (name, value) in settings {
            command.env(name, std::env::var(name).unwrap_or_else(|_| value.into()));
        }
    } else {
        command.env_clear();
        for name in only {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
    }
    command.spawn().with_context(failed)
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
