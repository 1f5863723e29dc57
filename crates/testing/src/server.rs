//! The shipped binary, as a user starts it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use wardroom_domain::canonical::sha256_hex;

/// A running server on data of its own.
pub struct Server {
    /// Everything it keeps lies below.
    pub dir: PathBuf,
    /// Where it listens; the same after a restart.
    pub url: String,
    /// A token that may only send.
    pub sender: String,
    /// A token that may approve; the executor knows it.
    pub responder: String,
    /// The executor's file.
    pub executor_config: PathBuf,
    environment: Vec<(String, String)>,
    /// Words before the program, such as `unshare`.
    wrapper: Vec<String>,
    port: u16,
    child: Option<Child>,
    agent: ureq::Agent,
}

/// A program that the tests were given; a test that needs one fails without it.
#[expect(clippy::disallowed_methods, reason = "tests are told by xtask where the programs are")]
pub fn program(variable: &str) -> PathBuf {
    std::env::var(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|_| panic!("{variable} is not set; run `cargo xtask test`"))
}

#[expect(clippy::disallowed_methods, reason = "tests start programs")]
pub(crate) fn command(program: &Path) -> Command {
    Command::new(program)
}

impl Server {
    /// Starts one in `dir`, whose executor knows these targets (YAML list items).
    ///
    /// # Errors
    /// It does not start.
    pub fn start(dir: &Path, targets: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_in(dir, targets, environment, &[])
    }

    /// As [`Server::start`], behind words that run it, such as `unshare`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_in(dir: &Path, targets: &str, environment: &[(&str, &str)], wrapper: &[&str]) -> anyhow::Result<Self> {
        let (data, secrets) = (dir.join("data"), dir.join("secrets"));
        std::fs::create_dir_all(&secrets)?;
        let token = |principal: &str, role: &str| create_token(&data, principal, role);
        let (sender, responder) = (token("oracle", "sender")?, token("alice", "responder")?);
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self {
            dir: dir.to_owned(),
            url: format!("http://127.0.0.1:{port}"),
            executor_config: secrets.join("executor.yaml"),
            environment: [("WARDROOM_EDGE__OTLP_GRPC", "off")]
                .iter()
                .chain(environment)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
            port,
            child: None,
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .timeout_global(Some(Duration::from_secs(20)))
                .build()
                .new_agent(),
            sender,
            responder,
        };
        server.write_executor_config(targets)?;
        server.restart()?;
        Ok(server)
    }

    /// Another one on a copy of this one's folder, with the same tokens and environment, on a port of its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn on_copy(&self, dir: &Path) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let within = self.executor_config.strip_prefix(&self.dir)?;
        let mut server = Self {
            dir: dir.to_owned(),
            url: format!("http://127.0.0.1:{port}"),
            executor_config: dir.join(within),
            environment: self.environment.clone(),
            wrapper: self.wrapper.clone(),
            port,
            child: None,
            agent: self.agent.clone(),
            sender: self.sender.clone(),
            responder: self.responder.clone(),
        };
        server.restart()?;
        Ok(server)
    }

    /// Writes the executor's file with these targets.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_executor_config(&self, targets: &str) -> anyhow::Result<()> {
        let list = if targets.is_empty() { "  []\n" } else { targets };
        let text = format!(
            "approvers:\n  - principal: alice\n    tenant: main\n    token-sha256: {}\ntargets:\n{list}",
            sha256_hex(self.responder.as_bytes())
        );
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.executor_config)?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Starts it again on the same data and port.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        for _ in 0..100 {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("wardroom.log"))?;
            let binary = program("WARDROOM_BIN");
            let mut run = command(self.wrapper.first().map_or(&binary, |first| Path::new(first)));
            run.args(self.wrapper.iter().skip(1));
            if !self.wrapper.is_empty() {
                run.arg(&binary);
            }
            let mut child = run
                .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--data"])
                .arg(self.dir.join("data"))
                .arg("--executor-config")
                .arg(&self.executor_config)
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()?;
            let mut line = String::new();
            let out = child.stdout.take().context("no standard output")?;
            BufReader::new(out).read_line(&mut line)?;
            self.child = Some(child);
            if line.starts_with("listening ") {
                return Ok(());
            }
            // The port or the lock of a predecessor may take a moment; or a crash point lies on the way up.
            self.kill();
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("wardroom does not start; see {}", self.dir.join("wardroom.log").display())
    }

    /// A variable of its environment, from the next start on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL, and wait for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that is gone already needs no killing.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// SIGTERM; the exit code.
    ///
    /// # Errors
    /// It was not running, or does not end.
    pub fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.child.take().context("not running")?;
        command(Path::new("kill")).arg(child.id().to_string()).status()?;
        Ok(child.wait()?.code())
    }

    /// The processes, by their role: supervisor, server, executor.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let Some(parent) = self.child.as_ref().map(Child::id) else { return Vec::new() };
        let mut found = vec![("supervisor".to_owned(), parent)];
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let ppid = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            if ppid == Some(parent) {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push((line.split('\0').nth(1).unwrap_or_default().to_owned(), pid));
            }
        }
        found
    }

    /// A request with a token; status and body.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str, token: &str) -> anyhow::Result<(u16, String)> {
        let request = self.agent.get(format!("{}{path}", self.url)).header("Authorization", format!("Bearer {token}"));
        let mut answer = request.call()?;
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string()?;
        Ok((answer.status().as_u16(), text))
    }

    /// A request with a token and these headers; status, content type and body.
    ///
    /// # Errors
    /// No answer.
    pub fn post(
        &self,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<(u16, String, String)> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body)?;
        let kind =
            answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let text = answer.body_mut().with_config().limit(1 << 24).read_to_string()?;
        Ok((answer.status().as_u16(), kind, text))
    }

    /// JSON there and back; status and answer.
    ///
    /// # Errors
    /// No answer.
    pub fn json(&self, path: &str, token: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let headers = [("Content-Type", "application/json")];
        let (status, _, text) = self.post(path, token, &headers, body.to_string().as_bytes())?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// A remote_write body.
    ///
    /// # Errors
    /// No answer.
    pub fn write(&self, body: &[u8]) -> anyhow::Result<u16> {
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        Ok(self.post("/api/v1/write", &self.sender, &headers, body)?.0)
    }
}

impl Server {
    /// What a test that fails wants to know: whether it had ended, and its last words.
    #[expect(clippy::print_stderr, reason = "a failing test shows what it saw")]
    fn tell(&mut self) {
        let state = if self.ended() { "had ended" } else { "was running" };
        let log = std::fs::read_to_string(self.dir.join("wardroom.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("the server {state}; the end of its log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        self.kill();
    }
}

/// Makes a token of a tenant in a data folder.
///
/// # Errors
/// The program's.
pub fn create_tenant_token(data: &Path, principal: &str, role: &str, tenant: &str) -> anyhow::Result<String> {
    make_token(data, &["--principal", principal, "--role", role, "--tenant", tenant])
}

/// Makes a token in a data folder.
///
/// # Errors
/// The program's.
pub fn create_token(data: &Path, principal: &str, role: &str) -> anyhow::Result<String> {
    make_token(data, &["--principal", principal, "--role", role])
}

fn make_token(data: &Path, words: &[&str]) -> anyhow::Result<String> {
    let mut make = command(&program("WARDROOM_BIN"));
    make.args(["token", "create", "--json"]).args(words).arg("--data").arg(data);
    let made = make.output()?;
    let answer: Value =
        serde_json::from_slice(&made.stdout).with_context(|| String::from_utf8_lossy(&made.stderr).into_owned())?;
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}

/// Runs the binary; exit code and standard output.
///
/// # Errors
/// It cannot be run.
pub fn run(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = command(&program("WARDROOM_BIN")).args(arguments).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}
