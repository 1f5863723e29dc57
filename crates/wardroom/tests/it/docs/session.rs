//! One shell for all examples, in a folder of its own beside a link to the documentation.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use wardroom_testing::Shop;
use wardroom_testing::server::program;

use super::blocks::Block;

/// Time limit of one block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for the server to end after SIGTERM.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A running shell.
pub(super) struct Session {
    shell: Child,
    stdin: ChildStdin,
    /// Lines of the shell's own output: the exit status of each block.
    statuses: Receiver<String>,
    /// Text of the documentation → text that is run: addresses with other ports.
    addresses: Vec<(&'static str, String)>,
    output: String,
    dir: tempfile::TempDir,
    /// The control API that the documentation names as a target.
    _shop: Shop,
}

impl Session {
    /// Starts the shell in a new folder that contains the repository's `docs`.
    pub(super) fn start(root: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("repository");
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        std::fs::create_dir_all(&repository).unwrap();
        std::os::unix::fs::symlink(root.join("docs"), repository.join("docs")).unwrap();
        std::os::unix::fs::symlink(program("WARDROOM_BIN"), dir.path().join("bin/wardroom")).unwrap();
        let shop = Shop::start(&dir.path().join("shop"), &[]).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let control = shop.control.strip_prefix("http://").unwrap().to_owned();
        let addresses = vec![("127.0.0.1:8080", format!("127.0.0.1:{port}")), ("127.0.0.1:9000", control)];
        let mut path = OsString::from(dir.path().join("bin"));
        path.push(":");
        path.push(program("PATH"));
        let mut shell = Command::new("bash")
            .args(["--noprofile", "--norc", "-euo", "pipefail"])
            .current_dir(&repository)
            .env("PATH", path)
            .env("WARDROOM_EDGE__OTLP_GRPC", "off")
            .env_remove("WARDROOM_URL")
            .env_remove("WARDROOM_TOKEN")
            // The server that a block starts belongs to the same group, to be ended with it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let (sender, statuses) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { shell, stdin, statuses, addresses, output: String::new(), dir, _shop: shop }
    }

    /// Writes a file and returns its path.
    pub(super) fn write_file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, self.with_addresses(text)).unwrap();
        path.display().to_string()
    }

    /// Runs a script of a block in the shell. Returns its standard output.
    ///
    /// # Panics
    /// Panics if a command of the script fails, or the script does not end.
    pub(super) fn run(&mut self, block: &Block, script: &str) -> String {
        self.source(script).unwrap_or_else(|failure| panic!("{block}: {failure}"));
        self.output.clone()
    }

    /// Returns the value of an expression of the shell.
    pub(super) fn evaluate(&mut self, expression: &str) -> String {
        self.source(&format!("printf %s \"{expression}\"")).unwrap();
        self.output.clone()
    }

    /// Standard output of the last script.
    pub(super) fn last_output(&self) -> &str {
        &self.output
    }

    fn source(&mut self, script: &str) -> Result<(), String> {
        let [script_file, stdout, stderr] = ["script", "stdout", "stderr"].map(|name| self.dir.path().join(name));
        std::fs::write(&script_file, self.with_addresses(script)).unwrap();
        let [script_path, out, err] = [&script_file, &stdout, &stderr].map(|path| path.display());
        writeln!(self.stdin, "source {script_path} < /dev/null > {out} 2> {err}; echo done").unwrap();
        self.stdin.flush().unwrap();
        let answer = self.statuses.recv_timeout(BLOCK_TIMEOUT);
        let read = |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        self.output = read(&stdout);
        let failure = match answer {
            Ok(_) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => "does not end",
            Err(RecvTimeoutError::Disconnected) => "a command failed",
        };
        let log = std::fs::read_to_string(self.dir.path().join("repository/try/wardroom.log")).unwrap_or_default();
        Err(format!("{failure}\n{script}\nstdout:\n{}\nstderr:\n{}\nlog:\n{log}", self.output, read(&stderr)))
    }

    fn with_addresses(&self, text: &str) -> String {
        self.addresses.iter().fold(text.to_owned(), |text, (written, used)| text.replace(written, used))
    }
}

impl Drop for Session {
    /// Ends the shell and everything that it has started.
    fn drop(&mut self) {
        let group = format!("-{}", self.shell.id());
        let signal = |signal: &str| Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
        drop(signal("-TERM"));
        // Ends by itself once no process of the group holds the pipe.
        let _ended = self.statuses.recv_timeout(SHUTDOWN_TIMEOUT);
        drop(signal("-KILL"));
        drop(self.shell.wait());
    }
}
