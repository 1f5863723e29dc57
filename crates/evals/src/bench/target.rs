//! The receivers under test, each started on an empty data folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use wardroom_testing::{Server, server};

use super::cpu_profile::CpuProfile;
use super::lake_files::{count_files, folder_bytes, wait_for_merges};
use super::process_usage::{Usage, process_tree_usage};
use crate::child_process::ChildProcess;
use crate::server_metrics::{detector_lag_records, lake_lag_records};

/// Targets of `bench intake`.
pub(super) const TARGET_NAMES: &[&str] = &["wardroom", "victoria-metrics", "prometheus"];

/// Settings of Wardroom's lake.
#[derive(Clone, Copy, Debug)]
pub(super) struct LakeOptions {
    pub(super) enabled: bool,
    /// `lake.flush-seconds`; the default if `None`. If set, the benchmark waits until all samples are in the lake.
    pub(super) flush_seconds: Option<u64>,
}

impl LakeOptions {
    pub(super) const OFF: Self = Self { enabled: false, flush_seconds: None };
    pub(super) const ON: Self = Self { enabled: true, flush_seconds: None };
}

/// A running receiver.
pub(super) struct Target {
    dir: PathBuf,
    url: String,
    token: String,
    process: TargetProcess,
    lake: LakeOptions,
}

/// Interval of lag queries while the target is idle: a lag query costs as much CPU as a second of idling.
const LAG_POLL_INTERVAL: Duration = Duration::from_secs(4);
/// The target must become idle within this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// CPU time per second below which the target is idle.
const IDLE_CPU_S: f64 = 0.03;
/// Time after the start for background work of the startup, which must not count.
const STARTUP_TIME: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

enum TargetProcess {
    Wardroom(Box<Server>),
    Other(ChildProcess),
}

impl Target {
    /// Starts a target on an empty data folder. `lake` applies to Wardroom.
    pub(super) fn start(name: &str, lake: LakeOptions) -> anyhow::Result<Self> {
        // Next to the build, on a real disk: /tmp may be a tmpfs.
        let program = server::program("WARDROOM_BIN");
        let dir = program.parent().context("WARDROOM_BIN has no folder")?.join(format!("bench-{name}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        // Write out what a build or the previous target left in the page cache.
        nix::unistd::sync();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let (process, url, token) = match name {
            "wardroom" => {
                let enabled = if lake.enabled { "true" } else { "false" };
                let flush_seconds = lake.flush_seconds.map(|seconds| seconds.to_string());
                let mut environment = vec![("RUST_LOG", "warn"), ("WARDROOM_LAKE__ENABLED", enabled)];
                environment
                    .extend(flush_seconds.iter().map(|seconds| ("WARDROOM_LAKE__FLUSH_SECONDS", seconds.as_str())));
                let server = Server::start(&dir, "", &environment)?;
                let (url, token) = (server.url.clone(), server.sender_token.clone());
                (TargetProcess::Wardroom(Box::new(server)), url, token)
            }
            "victoria-metrics" => {
                let child = spawn_other(
                    "VICTORIA_METRICS_BIN",
                    &dir,
                    &[
                        format!("-storageDataPath={}", dir.join("data").display()),
                        format!("-httpListenAddr={address}"),
                        "-retentionPeriod=12".to_owned(),
                    ],
                )?;
                (TargetProcess::Other(child), format!("http://{address}"), String::new())
            }
            "prometheus" => {
                std::fs::write(dir.join("prometheus.yml"), "global: {}\n")?;
                let child = spawn_other(
                    "PROMETHEUS_BIN",
                    &dir,
                    &[
                        format!("--config.file={}", dir.join("prometheus.yml").display()),
                        format!("--storage.tsdb.path={}", dir.join("data").display()),
                        format!("--web.listen-address={address}"),
                        "--web.enable-remote-write-receiver".to_owned(),
                    ],
                )?;
                (TargetProcess::Other(child), format!("http://{address}"), String::new())
            }
            "rotel" => {
                let grpc = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
                let log = dir.join("rotel.log").display().to_string();
                let pid = dir.join("rotel.pid").display().to_string();
                let exporter = ["start", "--exporter", "blackhole", "--otlp-http-endpoint", &address];
                let files = ["--otlp-grpc-endpoint", &grpc.to_string(), "--log-file", &log, "--pid-file", &pid];
                let arguments: Vec<String> =
                    exporter.iter().chain(&files).map(|argument| (*argument).to_owned()).collect();
                (
                    TargetProcess::Other(spawn_other("ROTEL_BIN", &dir, &arguments)?),
                    format!("http://{address}"),
                    String::new(),
                )
            }
            other => bail!("unknown target {other:?}; known: {}", TARGET_NAMES.join(", ")),
        };
        let target = Self { dir, url, token, process, lake };
        target.wait_ready()?;
        Ok(target)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        let path = if matches!(self.process, TargetProcess::Wardroom(_)) { "/healthz" } else { "/metrics" };
        // Any response will do: rotel does not have this path.
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        for _ in 0..200 {
            if agent.get(format!("{}{path}", self.url)).call().is_ok() {
                std::thread::sleep(STARTUP_TIME);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} does not respond", self.url)
    }

    /// Wardroom's server; `None` for another product.
    pub(super) fn wardroom(&self) -> Option<&Server> {
        match &self.process {
            TargetProcess::Wardroom(server) => Some(server),
            TargetProcess::Other(_) => None,
        }
    }

    /// Wardroom's server, to kill and restart it.
    pub(super) fn server(&mut self) -> anyhow::Result<&mut Server> {
        match &mut self.process {
            TargetProcess::Wardroom(server) => Ok(server),
            TargetProcess::Other(_) => bail!("the target is not Wardroom"),
        }
    }

    fn pid(&self) -> u32 {
        match &self.process {
            TargetProcess::Wardroom(server) => server.processes().first().map_or(0, |(_, pid)| *pid),
            TargetProcess::Other(child) => child.id(),
        }
    }

    /// Starts a profiler if the target is Wardroom.
    pub(super) fn start_profile(&self) -> anyhow::Result<Option<CpuProfile>> {
        let TargetProcess::Wardroom(server) = &self.process else { return Ok(None) };
        let pids: Vec<u32> = server.processes().into_iter().map(|(_, pid)| pid).collect();
        CpuProfile::start(&self.dir, &pids).map(Some)
    }

    /// Returns CPU and memory of all its processes.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let usage = process_tree_usage(self.pid());
        ensure!(usage.rss_kib > 0.0, "the target has exited");
        Ok(usage)
    }

    /// Returns a connection for remote_write.
    pub(super) fn client(&self) -> Client {
        self.client_for("/api/v1/write", REMOTE_WRITE)
    }

    /// Returns a connection that posts to this path.
    pub(super) fn client_for(&self, path: &str, headers: &'static [(&'static str, &'static str)]) -> Client {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .build()
            .new_agent();
        Client { agent, url: format!("{}{path}", self.url), headers, token: self.token.clone() }
    }

    /// Waits until the target is idle: a second passes with almost no CPU, and Wardroom has no lag.
    pub(super) fn wait_until_idle(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let (mut before, mut lag_read) = (self.usage()?.cpu_s, None::<Instant>);
        loop {
            ensure!(started.elapsed() < IDLE_TIMEOUT, "the target is not idle after {IDLE_TIMEOUT:?}");
            std::thread::sleep(Duration::from_secs(1));
            let now = self.usage()?.cpu_s;
            let lag_due = lag_read.is_none_or(|read| read.elapsed() >= LAG_POLL_INTERVAL);
            if now - before < IDLE_CPU_S && lag_due {
                if self.lag_records()? == 0.0 {
                    return Ok(());
                }
                lag_read = Some(Instant::now());
            }
            before = now;
        }
    }

    /// Records that detection has not processed, and with a flush interval of the benchmark's own, those that are not
    /// in the lake.
    pub(super) fn lag_records(&self) -> anyhow::Result<f64> {
        let TargetProcess::Wardroom(server) = &self.process else { return Ok(0.0) };
        let lake = if self.lake.flush_seconds.is_some() { lake_lag_records(server)? } else { None };
        Ok(detector_lag_records(server)? + lake.unwrap_or_default())
    }

    /// Waits until no merge is due, and with a flush interval of the benchmark's own until the lake holds all `sent`
    /// samples; then until the target is idle. Returns the lake's files; `None` if nothing has been flushed.
    pub(super) fn lake_files(&mut self, sent: u64) -> anyhow::Result<Option<Value>> {
        let data = self.dir.join("data");
        if !data.join("lake/silver/samples").exists() {
            return Ok(None);
        }
        wait_for_merges(&data)?;
        let files = count_files(&data, sent, self.lake.flush_seconds.is_some())?;
        self.wait_until_idle()?;
        Ok(Some(files))
    }

    /// Returns the bytes that another product stores, after it merged its files; `None` for Wardroom, whose files
    /// [`Target::lake_files`] returns.
    pub(super) fn data_bytes(&mut self) -> anyhow::Result<Option<u64>> {
        if matches!(self.process, TargetProcess::Wardroom(_)) {
            return Ok(None);
        }
        // VictoriaMetrics' paths; other products return 404.
        for path in ["force_flush", "force_merge"] {
            let request = ureq::get(format!("{}/internal/{path}", self.url)).config().http_status_as_error(false);
            request.build().call()?;
        }
        self.wait_until_idle()?;
        Ok(Some(folder_bytes(&self.dir.join("data"))?))
    }

    /// Stops the target and removes its data.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        match &mut self.process {
            TargetProcess::Wardroom(server) => drop(server.stop()?),
            TargetProcess::Other(child) => {
                child.kill()?;
                child.wait()?;
            }
        }
        Ok(std::fs::remove_dir_all(&self.dir)?)
    }
}

/// A connection.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    headers: &'static [(&'static str, &'static str)],
    token: String,
}

const REMOTE_WRITE: &[(&str, &str)] = &[
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

impl Client {
    /// Posts a body; returns whether it was acknowledged.
    pub(super) fn send(&self, body: &[u8]) -> bool {
        let mut request = self.agent.post(&self.url);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        request.send(body).is_ok_and(|response| response.status().is_success())
    }
}

#[expect(clippy::disallowed_methods, reason = "the benchmark starts the other products")]
fn spawn_other(variable: &str, dir: &Path, arguments: &[String]) -> anyhow::Result<ChildProcess> {
    let log = std::fs::File::create(dir.join("log"))?;
    let program = server::program(variable);
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    Ok(child.into())
}
