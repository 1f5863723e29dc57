//! The nemesis between a server and its kernel: strace bends the answers of system calls.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use wardroom_testing::{Server, server};

/// The process that listens.
pub(crate) fn server_pid(server: &Server) -> anyhow::Result<u32> {
    Ok(server.processes().into_iter().find(|(role, _)| role == "server").context("no server")?.1)
}

/// Changes the kernel's answers to a server, until it is dropped.
pub(crate) struct Strace(Child);

impl Strace {
    #[expect(clippy::disallowed_methods, reason = "the nemesis is a program")]
    pub(crate) fn attach(server: &Server, inject: &[&str]) -> anyhow::Result<Self> {
        let pid = server_pid(server)?;
        let mut strace = Command::new(server::program("STRACE_BIN"));
        strace.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
        strace.args(["-f", "-q", "-o", "/dev/null"]);
        // Threads wake each other by write, so that one is bent for the files of the log alone; syncs fail for all,
        // for files made later, too.
        if inject.iter().any(|inject| inject.contains("write")) {
            strace.arg("-P").arg(server.dir.join("data/bus"));
            for entry in std::fs::read_dir(server.dir.join("data/bus"))? {
                strace.arg("-P").arg(entry?.path());
            }
        }
        strace.args(inject.iter().flat_map(|inject| ["-e", inject]));
        Self::on(strace, pid)
    }

    /// Changes the kernel's answers to one thread of a server.
    #[expect(clippy::disallowed_methods, reason = "the nemesis is a program")]
    pub(crate) fn attach_thread(server: &Server, thread: &str, inject: &str) -> anyhow::Result<Self> {
        for entry in std::fs::read_dir(format!("/proc/{}/task", server_pid(server)?))? {
            let path = entry?.path();
            if std::fs::read_to_string(path.join("comm"))?.trim() == thread {
                let id = path.file_name().and_then(|name| name.to_str()).context("no thread id")?;
                let mut strace = Command::new(server::program("STRACE_BIN"));
                strace.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
                strace.args(["-q", "-o", "/dev/null", "-e", inject]);
                return Self::on(strace, id.parse()?);
            }
        }
        anyhow::bail!("no thread is called {thread}")
    }

    fn on(mut strace: Command, pid: u32) -> anyhow::Result<Self> {
        let mut child = strace.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn()?;
        for _ in 0..100 {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_some_and(|tracer| tracer.trim() != "0") {
                std::thread::sleep(Duration::from_millis(200));
                return Ok(Self(child));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill()?;
        anyhow::bail!("strace cannot be attached (kernel.yama.ptrace_scope?)")
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Interrupted, it lets the server go on; killed, it would take it along.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).ok();
        self.0.wait().ok();
    }
}

/// Memory of the process that parses.
pub(crate) fn rss_kib(server: &Server) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server_pid(server)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
