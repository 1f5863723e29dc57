//! The receivers under test, each started on an empty disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use wardroom_domain::Timestamp;
use wardroom_testing::{Server, server};

use super::bodies::{Bodies, id};
use super::process::{Usage, usage};
use super::profile::Profile;
use super::tables;

/// All of them; the first is ours.
pub(crate) const NAMES: &[&str] = &["wardroom", "victoria-metrics", "prometheus"];

/// A running receiver.
pub(crate) struct Target {
    dir: PathBuf,
    url: String,
    token: String,
    running: Running,
    paced_cpu_s: f64,
}

/// How often one at rest is asked whether it has everything: an answer costs it as much as a second of rest.
const SELDOM: Duration = Duration::from_secs(4);
/// Seconds after which ours writes what it has into the tables: instead of ten minutes, so that a run ends.
const FLUSH_S: &str = "40";

/// What was read back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadBack {
    /// Samples of the witnesses that were sent.
    pub(crate) sent: u64,
    /// How many of them came back.
    pub(crate) read: u64,
    /// What each question took, in ms.
    pub(crate) each_ms: f64,
}

enum Running {
    Wardroom(Box<Server>),
    Peer(Child),
}

impl Target {
    /// A target on an empty disk. Ours keeps what it takes in tables if `lake` says so.
    pub(crate) fn start(name: &str, lake: bool) -> anyhow::Result<Self> {
        // Beside the build, on a real disk: /tmp may be memory.
        let program = server::program("WARDROOM_BIN");
        let dir = program.parent().context("WARDROOM_BIN has no folder")?.join(format!("bench-{name}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        // What others left for the disk to do (a build, the target before) must not be waited for by this one.
        nix::unistd::sync();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let (running, url, token) = match name {
            "wardroom" => {
                let lake = if lake { "true" } else { "false" };
                let more = [("WARDROOM_LAKE__ENABLED", lake), ("WARDROOM_LAKE__FLUSH_SECONDS", FLUSH_S)];
                let server = Server::start(&dir, "", &[[("RUST_LOG", "warn")].as_slice(), &more].concat())?;
                let (url, token) = (server.url.clone(), server.sender.clone());
                (Running::Wardroom(Box::new(server)), url, token)
            }
            "victoria-metrics" => {
                let child = peer(
                    "VICTORIA_METRICS_BIN",
                    &dir,
                    &[
                        format!("-storageDataPath={}", dir.join("data").display()),
                        format!("-httpListenAddr={address}"),
                        "-retentionPeriod=12".to_owned(),
                    ],
                )?;
                (Running::Peer(child), format!("http://{address}"), String::new())
            }
            "prometheus" => {
                std::fs::write(dir.join("prometheus.yml"), "global: {}\n")?;
                let child = peer(
                    "PROMETHEUS_BIN",
                    &dir,
                    &[
                        format!("--config.file={}", dir.join("prometheus.yml").display()),
                        format!("--storage.tsdb.path={}", dir.join("data").display()),
                        format!("--web.listen-address={address}"),
                        "--web.enable-remote-write-receiver".to_owned(),
                    ],
                )?;
                (Running::Peer(child), format!("http://{address}"), String::new())
            }
            "rotel" => {
                let grpc = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
                let log = dir.join("rotel.log").display().to_string();
                let pid = dir.join("rotel.pid").display().to_string();
                let words = ["start", "--exporter", "blackhole", "--otlp-http-endpoint", &address];
                let more = ["--otlp-grpc-endpoint", &grpc.to_string(), "--log-file", &log, "--pid-file", &pid];
                let words: Vec<String> = words.iter().chain(&more).map(|word| (*word).to_owned()).collect();
                (Running::Peer(peer("ROTEL_BIN", &dir, &words)?), format!("http://{address}"), String::new())
            }
            other => bail!("no target is called {other:?}; there are {}", NAMES.join(", ")),
        };
        let target = Self { dir, url, token, running, paced_cpu_s: 0.0 };
        target.wait_ready()?;
        Ok(target)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        let path = if matches!(self.running, Running::Wardroom(_)) { "/healthz" } else { "/metrics" };
        // An answer of any kind will do: rotel knows no such path.
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        for _ in 0..200 {
            if agent.get(format!("{}{path}", self.url)).call().is_ok() {
                // Whatever it still does by itself must not count.
                std::thread::sleep(Duration::from_secs(2));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} does not answer", self.url)
    }

    /// Ours, to kill and start.
    pub(crate) fn server(&mut self) -> anyhow::Result<&mut Server> {
        match &mut self.running {
            Running::Wardroom(server) => Ok(server),
            Running::Peer(_) => bail!("a peer"),
        }
    }

    fn pid(&self) -> u32 {
        match &self.running {
            Running::Wardroom(server) => server.processes().first().map_or(0, |(_, pid)| *pid),
            Running::Peer(child) => child.id(),
        }
    }

    /// A profiler beside it, if it is ours.
    pub(crate) fn profile(&self) -> anyhow::Result<Option<Profile>> {
        let Running::Wardroom(server) = &self.running else { return Ok(None) };
        let pids: Vec<u32> = server.processes().into_iter().map(|(_, pid)| pid).collect();
        Profile::start(&self.dir, &pids).map(Some)
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let found = usage(self.pid());
        ensure!(found.rss_kib > 0.0, "the target has ended");
        Ok(found)
    }

    /// CPU when it had last come to rest.
    pub(crate) const fn paced_cpu_s(&self) -> f64 {
        self.paced_cpu_s
    }

    pub(crate) fn client(&self) -> Client {
        self.client_for("/api/v1/write", REMOTE_WRITE)
    }

    /// A connection that posts to this path.
    pub(crate) fn client_for(&self, path: &str, headers: &'static [(&'static str, &'static str)]) -> Client {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Client { agent, url: format!("{}{path}", self.url), headers, token: self.token.clone() }
    }

    /// Waits until it is quiet: for us until detection has reached the end of the bus, for all until a second
    /// passes with next to no CPU.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let (mut before, mut asked) = (self.usage()?.cpu_s, None::<Instant>);
        loop {
            ensure!(started.elapsed() < Duration::from_secs(300), "the target does not come to rest");
            std::thread::sleep(Duration::from_secs(1));
            let now = self.usage()?.cpu_s;
            if now - before < 0.03 && asked.is_none_or(|asked| asked.elapsed() >= SELDOM) {
                if self.lag()? == 0.0 {
                    self.paced_cpu_s = now;
                    return Ok(());
                }
                asked = Some(Instant::now());
            }
            before = now;
        }
    }

    /// Records that detection has not seen, and those that are not in the tables, by /metrics.
    pub(crate) fn lag(&self) -> anyhow::Result<f64> {
        let Running::Wardroom(server) = &self.running else { return Ok(0.0) };
        let (_, text) = server.get("/metrics", &server.responder)?;
        let lag = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|lag| lag.trim().parse());
        let detect: f64 = lag("wardroom_detect_lag_records ").context("/metrics does not name the lag")??;
        // Without a lake there is none.
        Ok(detect + lag("wardroom_lake_lag_records ").transpose()?.unwrap_or_default())
    }

    /// Waits until all samples that were sent are in the table, by a reader from outside, and every merge is done; what that
    /// reader finds. Nothing without a lake.
    pub(crate) fn tables(&mut self, sent: u64) -> anyhow::Result<Option<Value>> {
        if !self.dir.join("data/lake/silver/samples").exists() {
            return Ok(None);
        }
        tables::merged(&self.dir.join("data"))?;
        let found = tables::counted(&self.dir.join("data"), sent)?;
        self.settle()?;
        Ok(Some(found))
    }

    /// Bytes of what it keeps for good, once a peer has made its files as small as they get; what is finished of ours stands in
    /// [`Target::tables`].
    pub(crate) fn data_bytes(&mut self, name: &str) -> anyhow::Result<Option<u64>> {
        if name == "victoria-metrics" {
            ureq::get(format!("{}/internal/force_flush", self.url)).call()?;
            ureq::get(format!("{}/internal/force_merge", self.url)).call()?;
            self.settle()?;
        }
        let peer = matches!(self.running, Running::Peer(_));
        Ok(peer.then(|| tables::size(&self.dir.join("data"))).transpose()?)
    }

    /// Of the witnesses' samples of the last hour, how many come back bit for bit; nothing for a peer.
    pub(crate) fn read_back(&self, bodies: &Bodies) -> anyhow::Result<Option<ReadBack>> {
        let Running::Wardroom(server) = &self.running else { return Ok(None) };
        let start_ms = bodies.end_ms - 3_600_000;
        let (mut sent, mut read) = (0_u64, 0_u64);
        let started = Instant::now();
        for (at, samples) in &bodies.witnesses {
            let selector = format!("%7Bid%3D%22{}%22%7D", id(*at));
            let start = start_ms as f64 / 1000.0;
            let (mut cursor, mut got) = ("0".to_owned(), BTreeSet::new());
            loop {
                let path = format!("/api/v1/samples?match[]={selector}&start={start}&cursor={cursor}");
                let (status, text) = server.get(&path, &server.responder)?;
                ensure!(status == 200, "{text}");
                let page: Value = serde_json::from_str(&text)?;
                for sample in
                    page["series"].as_array().into_iter().flatten().flat_map(|s| s["samples"].as_array()).flatten()
                {
                    let bits = u64::from_str_radix(sample[2].as_str().unwrap_or_default(), 16)?;
                    got.insert((sample[0].as_i64().unwrap_or_default(), bits));
                }
                match &page["next"] {
                    Value::String(next) => cursor.clone_from(next),
                    _ => break,
                }
            }
            let expected: BTreeSet<_> = samples.iter().copied().filter(|(ts_ms, _)| *ts_ms >= start_ms).collect();
            sent += expected.len() as u64;
            read += expected.intersection(&got).count() as u64;
            ensure!(got.is_subset(&expected), "{} was read with samples nobody sent", id(*at));
        }
        let each_ms = started.elapsed().as_secs_f64() * 1000.0 / bodies.witnesses.len() as f64;
        Ok(Some(ReadBack { sent, read, each_ms }))
    }

    /// Of the shifts that were injected, how many stand in the list of anomalies.
    pub(crate) fn shifts_found(&self, bodies: &Bodies) -> anyhow::Result<Value> {
        let Running::Wardroom(server) = &self.running else { return Ok(Value::Null) };
        let mut anomalies: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let (mut cursor, mut total) = (String::new(), 0_u64);
        loop {
            let (status, text) = server.get(&format!("/api/v1/anomalies?since=0{cursor}"), &server.responder)?;
            ensure!(status == 200, "{text}");
            let page: Value = serde_json::from_str(&text)?;
            for anomaly in page["anomalies"].as_array().into_iter().flatten() {
                total += 1;
                let at = Timestamp::parse(anomaly["at"].as_str().unwrap_or_default()).map_err(anyhow::Error::msg)?;
                let id = anomaly["series"]["id"].as_str().unwrap_or_default();
                anomalies.entry(id.to_owned()).or_default().push(at.millis());
            }
            match &page["next"] {
                Value::String(next) => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        let found = bodies.shifts.iter().filter(|(at, from_ms)| {
            let near = |ts_ms: &i64| (*from_ms..=from_ms + 10 * 15_000).contains(ts_ms);
            anomalies.get(&id(*at)).is_some_and(|list| list.iter().any(near))
        });
        Ok(serde_json::json!({ "injected": bodies.shifts.len(), "found": found.count(), "anomalies": total }))
    }

    /// Stops it and clears its disk.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        match &mut self.running {
            Running::Wardroom(server) => drop(server.stop()?),
            Running::Peer(child) => {
                child.kill()?;
                child.wait()?;
            }
        }
        Ok(std::fs::remove_dir_all(&self.dir)?)
    }
}

/// One connection.
pub(crate) struct Client {
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
    /// Whether the request was acknowledged.
    pub(crate) fn send(&self, body: &[u8]) -> bool {
        let mut request = self.agent.post(&self.url);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        request.send(body).is_ok_and(|answer| answer.status().is_success())
    }
}

#[expect(clippy::disallowed_methods, reason = "the benchmark starts its peers")]
fn peer(variable: &str, dir: &Path, arguments: &[String]) -> anyhow::Result<Child> {
    let log = std::fs::File::create(dir.join("log"))?;
    let program = server::program(variable);
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("cannot run {}", program.display()))
}
