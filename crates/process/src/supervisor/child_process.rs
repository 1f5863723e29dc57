//! Starting, killing and waiting for the processes of the supervisor.

use std::io::{Error, Result};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::heap::{self, AllocatorSetting};

/// Exit code of an executor that rejects its configuration (`EX_CONFIG` in sysexits.h).
pub const CONFIG_EXIT_CODE: u8 = 78;

/// Beginning of the names of variables with credentials of targets: for the executor only.
const SECRET_PREFIX: &str = "WARDROOM_SECRET_";

/// Starts this binary with other arguments. A non-empty `inherited` limits the environment to these variables and the
/// credentials of targets, which a process with the whole environment does not get.
#[expect(
    clippy::disallowed_methods,
    reason = "the supervisor starts processes and passes on selected environment variables"
)]
pub(super) fn start(
    process: &'static str,
    arguments: &[String],
    inherited: &[&str],
    standard_input: Stdio,
) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(standard_input);
    let secrets = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(SECRET_PREFIX.as_bytes()));
    if inherited.is_empty() {
        for (name, _) in secrets {
            command.env_remove(name);
        }
        set_allocator(&mut command, heap::SERVER_ALLOCATOR_SETTINGS);
    } else {
        command.env_clear();
        for name in inherited {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
        command.envs(secrets);
    }
    command.spawn().map_err(|error| Error::new(error.kind(), format!("cannot start {process}: {error}")))
}

/// Sets the variables of the allocator, to their values in this process' environment if it has them.
pub(super) fn set_allocator(command: &mut Command, settings: &[AllocatorSetting]) {
    for setting in settings {
        let value = std::env::var_os(setting.variable).unwrap_or_else(|| setting.value.into());
        command.env(setting.variable, value);
    }
}

/// Sends SIGCHLD to this process: the supervisor then looks what is due.
pub(super) fn wake() {
    let _cannot_fail = kill(Pid::this(), Signal::SIGCHLD);
}

/// Sends SIGCHLD to this process once `wait` returns.
pub(super) fn wake_after(wait: impl FnOnce() + Send + 'static) {
    let wake = move || {
        wait();
        wake();
    };
    if let Err(error) = std::thread::Builder::new().name("restart".into()).spawn(wake) {
        tracing::error!(%error, "starting a thread failed; a process is not restarted");
    }
}

pub(super) fn kill_and_wait(child: &mut Child) {
    signal(child, Signal::SIGKILL);
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "waiting for the child failed");
    }
}

pub(super) fn signal(child: &Child, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(child.id() as i32), signal) {
        tracing::debug!(%error, "child has already exited");
    }
}
