//! The executor's process: started again after it exits, but not in a tight loop.
//!
//! Problem: an executor that cannot start (a missing or invalid configuration, a damaged ledger) would be started ten
//! times a second and fill the log. Model: the state below; the supervisor waits for signals, so a thread wakes it with
//! SIGCHLD when a restart is due.

use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::child_process::{CONFIG_EXIT_CODE, kill_and_wait, start, wake_after};
use crate::crash;

/// Delay before an executor is started again that was killed, or that ran for [`STABLE_RUN`].
const RESTART_DELAY: Duration = Duration::from_millis(100);
/// First delay before an executor is started again that failed; it doubles up to [`MAX_FAILED_START_DELAY`].
const MIN_FAILED_START_DELAY: Duration = Duration::from_secs(1);
/// Maximum delay before an executor is started again that failed.
const MAX_FAILED_START_DELAY: Duration = Duration::from_secs(60);
/// An executor that ran this long had started.
const STABLE_RUN: Duration = Duration::from_secs(10);
/// Interval of checks whether a rejected configuration file has changed.
const CONFIG_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The executor and when it is started next.
pub(super) struct ExecutorProcess {
    data: PathBuf,
    config: PathBuf,
    state: State,
    /// Delay before the next start, if the executor fails again.
    failed_start_delay: Duration,
}

enum State {
    Running {
        child: Child,
        started: Instant,
        /// The configuration file when the executor was started.
        config: FileVersion,
    },
    /// It exited; a thread wakes the supervisor at this time.
    Waiting { until: Instant },
    /// It rejected its configuration; a thread wakes the supervisor when the file changes.
    Rejected { config: FileVersion },
}

impl ExecutorProcess {
    pub(super) fn start(data: &Path, config: &Path) -> Result<Self> {
        let (data, config) = (data.to_owned(), config.to_owned());
        let state = start_executor(&data, &config)?;
        Ok(Self { data, config, state, failed_start_delay: MIN_FAILED_START_DELAY })
    }

    /// Notices an exit, and starts the executor if that is due. Called after each SIGCHLD.
    pub(super) fn poll(&mut self) {
        match &mut self.state {
            State::Running { child, started, config } => {
                if let Ok(Some(status)) = child.try_wait() {
                    let (ran, config) = (started.elapsed(), *config);
                    self.state = self.after_exit(status, ran, config);
                }
            }
            // Another child's exit.
            State::Waiting { until } if Instant::now() < *until => {}
            State::Rejected { config } if *config == FileVersion::of(&self.config) => {}
            State::Waiting { .. } => self.restart(),
            State::Rejected { .. } => {
                tracing::info!("the executor's configuration has changed; starting the executor");
                self.restart();
            }
        }
    }

    fn restart(&mut self) {
        self.state = start_executor(&self.data, &self.config).unwrap_or_else(|error| {
            tracing::error!(%error, "starting the executor failed; retrying");
            wait_until_restart(MAX_FAILED_START_DELAY)
        });
    }

    /// Kills the executor, if it runs, and waits for it.
    pub(super) fn kill(self) {
        if let State::Running { mut child, .. } = self.state {
            kill_and_wait(&mut child);
        }
    }

    /// Decides when an executor is started again that has exited.
    fn after_exit(&mut self, status: ExitStatus, ran: Duration, config: FileVersion) -> State {
        if status.code() == Some(CONFIG_EXIT_CODE.into()) {
            // The executor has said why.
            let path = self.config.clone();
            wake_after(move || {
                while FileVersion::of(&path) == config {
                    std::thread::sleep(CONFIG_POLL_INTERVAL);
                }
            });
            return State::Rejected { config };
        }
        let failed = status.signal().is_none() && ran < STABLE_RUN;
        let delay = if failed { self.failed_start_delay } else { RESTART_DELAY };
        self.failed_start_delay = if failed { (delay * 2).min(MAX_FAILED_START_DELAY) } else { MIN_FAILED_START_DELAY };
        tracing::error!(%status, ?delay, "executor exited; restarting");
        wait_until_restart(delay)
    }
}

/// Starts the executor with an empty environment, except for the variables of crash tests.
fn start_executor(data: &Path, config_file: &Path) -> Result<State> {
    // Before the start: a later change is then noticed, whether the executor has seen it or not.
    let config = FileVersion::of(config_file);
    let (data, config_file) = (data.display().to_string(), config_file.display().to_string());
    let arguments = ["executor", "--data", &data, "--executor-config", &config_file].map(str::to_owned);
    let child = start("executor", &arguments, crash::EXECUTOR_ENV, Stdio::null())?;
    Ok(State::Running { child, started: Instant::now(), config })
}

/// Returns the state in which the executor is started after a delay.
fn wait_until_restart(delay: Duration) -> State {
    // Before the thread starts: it must not wake the supervisor before this time.
    let until = Instant::now() + delay;
    wake_after(move || std::thread::sleep(delay));
    State::Waiting { until }
}

/// What tells whether a file has changed: device, inode, size and the time of the last change of content, mode or
/// owner; `None` if it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion(Option<([u64; 3], [i64; 2])>);

impl FileVersion {
    fn of(path: &Path) -> Self {
        // Not of the target of a symbolic link, which is refused.
        let found = std::fs::symlink_metadata(path).ok();
        Self(found.map(|file| ([file.dev(), file.ino(), file.size()], [file.ctime(), file.ctime_nsec()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn failed_starts_are_delayed_more_and_more() {
        let mut process = ExecutorProcess {
            data: PathBuf::new(),
            config: PathBuf::new(),
            state: State::Rejected { config: FileVersion(None) },
            failed_start_delay: MIN_FAILED_START_DELAY,
        };
        let mut delay = |status: ExitStatus, ran: Duration| match process.after_exit(status, ran, FileVersion(None)) {
            State::Waiting { until } => until.saturating_duration_since(Instant::now()).as_millis().div_ceil(100),
            State::Rejected { .. } => u128::MAX,
            State::Running { .. } => 0,
        };
        let (soon, long) = (Duration::from_millis(50), STABLE_RUN);
        assert_eq!([1, 2, 3].map(|_| delay(exited(1), soon)), [10, 20, 40]);
        assert_eq!((0..5).map(|_| delay(exited(1), soon)).last(), Some(600), "the maximum");
        assert_eq!(delay(ExitStatus::from_raw(9), soon), 1, "killed");
        assert_eq!(delay(exited(1), soon), 10, "the first failure after that");
        assert_eq!(delay(exited(1), long), 1, "it had started");
        assert_eq!(delay(exited(CONFIG_EXIT_CODE.into()), soon), u128::MAX, "not before the file changes");
    }

    #[test]
    fn changes_of_a_file_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let missing = FileVersion::of(&path);
        std::fs::write(&path, "a").unwrap();
        let written = FileVersion::of(&path);
        assert_ne!(missing, written);
        assert_eq!(FileVersion::of(&path), written);
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&path, permissions).unwrap();
        assert_ne!(FileVersion::of(&path), written);
    }
}
