//! Fault injection into a running server's system calls, by strace.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use wardroom_testing::{Server, server};

const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for strace to attach to the remaining threads once the first is traced.
const ATTACH_THREADS_DELAY: Duration = Duration::from_millis(200);

/// Returns the process that listens.
pub(super) fn server_pid(server: &Server) -> anyhow::Result<u32> {
    Ok(server.processes().into_iter().find(|(role, _)| role == "server").context("no server process")?.1)
}

/// Returns the resident memory of the process that listens, in KiB.
pub(super) fn rss_kib(server: &Server) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server_pid(server)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// An attached strace; dropping it detaches.
pub(super) struct Strace(Child);

impl Strace {
    /// Attaches to all threads of the server.
    pub(super) fn attach(server: &Server, inject: &[&str]) -> anyhow::Result<Self> {
        let mut strace = strace_command();
        strace.arg("-f");
        // `write` is restricted to the bus' files, because threads also wake each other by `write`. Syncs are not: they
        // must fail for files created later, too.
        if inject.iter().any(|inject| inject.contains("write")) {
            strace.arg("-P").arg(server.dir.join("data/bus"));
            for entry in std::fs::read_dir(server.dir.join("data/bus"))? {
                strace.arg("-P").arg(entry?.path());
            }
        }
        strace.args(inject.iter().flat_map(|inject| ["-e", inject]));
        Self::attach_pid(strace, server_pid(server)?)
    }

    /// Attaches to all threads of a process, with these arguments. The calls are written to `log`, if there is one.
    pub(super) fn attach_process(pid: u32, arguments: &[&str], log: Option<&Path>) -> anyhow::Result<Self> {
        let mut strace = strace_command();
        strace.arg("-f").args(arguments);
        if let Some(log) = log {
            strace.arg("-o").arg(log);
        }
        Self::attach_pid(strace, pid)
    }

    /// Attaches to the server's thread with this name.
    pub(super) fn attach_thread(server: &Server, thread: &str, inject: &str) -> anyhow::Result<Self> {
        for entry in std::fs::read_dir(format!("/proc/{}/task", server_pid(server)?))? {
            let path = entry?.path();
            if std::fs::read_to_string(path.join("comm"))?.trim() == thread {
                let id = path.file_name().and_then(|name| name.to_str()).context("no thread id")?;
                let mut strace = strace_command();
                strace.args(["-e", inject]);
                return Self::attach_pid(strace, id.parse()?);
            }
        }
        anyhow::bail!("the server has no thread named {thread}")
    }

    fn attach_pid(mut strace: Command, pid: u32) -> anyhow::Result<Self> {
        // Detached when dropped, also if an error is returned below.
        let attached = Self(strace.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn()?);
        let started = Instant::now();
        while started.elapsed() < ATTACH_TIMEOUT {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_some_and(|tracer| tracer.trim() != "0") {
                std::thread::sleep(ATTACH_THREADS_DELAY);
                return Ok(attached);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("strace cannot be attached (kernel.yama.ptrace_scope?)")
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGINT makes strace detach, so that the server continues. SIGKILL would kill the server, too.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).ok();
        self.0.wait().ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "fault injectors are separate programs")]
fn strace_command() -> Command {
    let mut strace = Command::new(server::program("STRACE_BIN"));
    strace.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    strace.args(["-q", "-o", "/dev/null"]);
    strace
}
