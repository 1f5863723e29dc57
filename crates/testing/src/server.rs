//! Starts and controls the shipped binary through its public interfaces.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use wardroom_domain::canonical::sha256_hex;

/// A running server with its own data folder.
pub struct Server {
    /// Folder of the data, secrets and log.
    pub dir: PathBuf,
    /// Base URL; the same after a restart.
    pub url: String,
    /// Token with the role `sender`.
    pub sender_token: String,
    /// Token with the role `responder`; listed as an approver in the executor's configuration.
    pub responder_token: String,
    /// The executor's configuration file.
    pub executor_config: PathBuf,
    environment: Vec<(String, String)>,
    /// Command that runs the program, such as `unshare`, with its arguments.
    wrapper: Vec<String>,
    /// The program; `WARDROOM_BIN` unless it is another version.
    binary: PathBuf,
    port: u16,
    child: Option<Child>,
    agent: ureq::Agent,
}

/// Returns the path of a program from an environment variable.
///
/// # Panics
/// Panics if the variable is not set.
#[expect(clippy::disallowed_methods, reason = "xtask passes the paths of programs in the environment")]
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
    /// Starts a server in `dir`; `targets` are YAML list items of the executor's configuration.
    ///
    /// # Errors
    /// Returns an error if the server does not start.
    pub fn start(dir: &Path, targets: &str, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_wrapped(dir, targets, environment, &[])
    }

    /// Like [`Server::start`], with another version of the program.
    ///
    /// # Errors
    /// Returns an error if the server does not start.
    pub fn start_version(
        binary: &Path,
        dir: &Path,
        targets: &str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_program(binary, dir, targets, environment, &[])
    }

    /// Like [`Server::start`], run by a wrapper command such as `unshare`.
    ///
    /// # Errors
    /// Returns an error if the server does not start.
    pub fn start_wrapped(
        dir: &Path,
        targets: &str,
        environment: &[(&str, &str)],
        wrapper: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_program(&program("WARDROOM_BIN"), dir, targets, environment, wrapper)
    }

    fn start_program(
        binary: &Path,
        dir: &Path,
        targets: &str,
        environment: &[(&str, &str)],
        wrapper: &[&str],
    ) -> anyhow::Result<Self> {
        let (data, secrets) = (dir.join("data"), dir.join("secrets"));
        std::fs::create_dir_all(&secrets)?;
        let token = |principal: &str, role: &str| {
            token_create(binary, &data, &["--principal", principal, "--role", role], environment)
        };
        let (sender_token, responder_token) = (token("oracle", "sender")?, token("alice", "responder")?);
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
            binary: binary.to_owned(),
            port,
            child: None,
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .timeout_global(Some(Duration::from_secs(20)))
                .build()
                .new_agent(),
            sender_token,
            responder_token,
        };
        server.write_executor_config(targets)?;
        server.restart()?;
        Ok(server)
    }

    /// Starts a second server on a copy of this server's folder, with the same tokens and environment and another port.
    ///
    /// # Errors
    /// Returns an error if the server does not start.
    pub fn start_on_copy(&self, dir: &Path) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let relative_path = self.executor_config.strip_prefix(&self.dir)?;
        let mut server = Self {
            dir: dir.to_owned(),
            url: format!("http://127.0.0.1:{port}"),
            executor_config: dir.join(relative_path),
            environment: self.environment.clone(),
            wrapper: self.wrapper.clone(),
            binary: self.binary.clone(),
            port,
            child: None,
            agent: self.agent.clone(),
            sender_token: self.sender_token.clone(),
            responder_token: self.responder_token.clone(),
        };
        server.restart()?;
        Ok(server)
    }

    /// Writes the executor's configuration with these targets.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_executor_config(&self, targets: &str) -> anyhow::Result<()> {
        let list = if targets.is_empty() { "  []\n" } else { targets };
        let text = format!(
            "approvers:\n  - principal: alice\n    tenant: main\n    proof: token\n    token-sha256: {}\ntargets:\n{list}",
            sha256_hex(self.responder_token.as_bytes())
        );
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.executor_config)?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Kills the server if it runs, and starts it on the same data and port.
    ///
    /// # Errors
    /// Returns an error if the server does not start after 100 attempts.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        for _ in 0..100 {
            // Retried: the previous process may still hold the port or the lock, or a crash point lies in the startup.
            if self.restart_once()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("wardroom does not start; see {}", self.dir.join("wardroom.log").display())
    }

    /// Kills the server if it runs, and tries to start it once. Returns whether it runs.
    ///
    /// # Errors
    /// Returns an error if the program cannot be run.
    pub fn restart_once(&mut self) -> anyhow::Result<bool> {
        self.kill();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("wardroom.log"))?;
        let mut run = command(self.wrapper.first().map_or(&*self.binary, |first| Path::new(first)));
        run.args(self.wrapper.iter().skip(1));
        if !self.wrapper.is_empty() {
            run.arg(&self.binary);
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
        let is_running = line.starts_with("listening ");
        if !is_running {
            self.kill();
        }
        Ok(is_running)
    }

    /// Sets another version of the program for the next start.
    pub fn set_program(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Sets an environment variable for the next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Whether the process has exited.
    pub fn has_exited(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may have exited already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends SIGTERM and returns the exit code.
    ///
    /// # Errors
    /// Returns an error if the server is not running or cannot be waited for.
    pub fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.child.take().context("not running")?;
        command(Path::new("kill")).arg(child.id().to_string()).status()?;
        Ok(child.wait()?.code())
    }

    /// Returns (role, pid) of each process; roles are supervisor, server and executor.
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

    /// Runs the binary with the server's environment; returns exit code and standard output.
    ///
    /// # Errors
    /// Returns an error if the binary cannot be run.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut run = command(&self.binary);
        run.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        // That is for the server only.
        run.env_remove("WARDROOM_CRASH_AT");
        let output = run.output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Sends a GET request; returns status and body.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn get(&self, path: &str, token: &str) -> anyhow::Result<(u16, String)> {
        let request = self.agent.get(format!("{}{path}", self.url)).header("Authorization", format!("Bearer {token}"));
        let mut response = request.call()?;
        let text = response.body_mut().with_config().limit(1 << 30).read_to_string()?;
        Ok((response.status().as_u16(), text))
    }

    /// Sends a POST request; returns status, content type and body. An empty token is not sent.
    ///
    /// # Errors
    /// Returns an error if there is no response.
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
        let mut response = request.send(body)?;
        let content_type =
            response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let text = response.body_mut().with_config().limit(1 << 24).read_to_string()?;
        Ok((response.status().as_u16(), content_type, text))
    }

    /// Sends a POST request with a JSON body; returns status and JSON response.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn post_json(&self, path: &str, token: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let headers = [("Content-Type", "application/json")];
        let (status, _, text) = self.post(path, token, &headers, body.to_string().as_bytes())?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Sends a remote_write request with the sender token; returns the status.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn write(&self, body: &[u8]) -> anyhow::Result<u16> {
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        Ok(self.post("/api/v1/write", &self.sender_token, &headers, body)?.0)
    }
}

impl Server {
    /// Prints the state of the process and the end of its log, for a failing test.
    #[expect(clippy::print_stderr, reason = "output of a failing test")]
    fn print_log_tail(&mut self) {
        let state = if self.has_exited() { "has exited" } else { "is running" };
        let log = std::fs::read_to_string(self.dir.join("wardroom.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("the server {state}; end of its log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_log_tail();
        }
        self.kill();
    }
}

/// Creates a token of a tenant.
///
/// # Errors
/// Returns an error if `wardroom token create` fails.
pub fn create_tenant_token(data: &Path, principal: &str, role: &str, tenant: &str) -> anyhow::Result<String> {
    let arguments = ["--principal", principal, "--role", role, "--tenant", tenant];
    token_create(&program("WARDROOM_BIN"), data, &arguments, &[])
}

/// Creates a token of the default tenant.
///
/// # Errors
/// Returns an error if `wardroom token create` fails.
pub fn create_token(data: &Path, principal: &str, role: &str) -> anyhow::Result<String> {
    token_create(&program("WARDROOM_BIN"), data, &["--principal", principal, "--role", role], &[])
}

fn token_create(
    binary: &Path,
    data: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<String> {
    let mut create = command(binary);
    create.args(["token", "create", "--json"]).args(arguments).arg("--data").arg(data);
    create.envs(environment.iter().copied()).env_remove("WARDROOM_CRASH_AT");
    let output = create.output()?;
    let response: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(response["token"].as_str().context("no token")?.to_owned())
}

/// Runs the binary; returns exit code and standard output.
///
/// # Errors
/// Returns an error if the binary cannot be run.
pub fn run(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = command(&program("WARDROOM_BIN")).args(arguments).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}
