//! Bar 1e: a real Prometheus behind a receiver that answers 503, and is then killed again and again. Every sample
//! that it scraped arrives: both sides are dumped and compared, line by line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, server};

use crate::strace::Strace;
use crate::{Options, Tally, tell};

/// What one kill stands for of the time of refusals: the long form, 20 kills, has ten minutes.
const REFUSED: Duration = Duration::from_secs(30);
/// What it may take to send what waited.
const CATCH_UP: Duration = Duration::from_secs(240);

/// Runs the bar.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-1e-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mutant = options.mutant.as_deref().unwrap_or_default();
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", mutant)])?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let prometheus = Prometheus::start(&dir, &server)?;
    std::thread::sleep(Duration::from_secs(5));
    let outage = REFUSED * u32::try_from(options.kills)?;
    let strace = Strace::attach(&server, &["inject=fdatasync:error=EIO:when=1+"])?;
    std::thread::sleep(outage);
    let refused = refusals(&server)?;
    drop(strace);
    let mut tally = Tally::default();
    if refused < outage.as_secs_f64() / 30.0 {
        tally.faults.push(format!("only {refused} requests were refused: the bar means nothing"));
    }
    tell(format!("503 for {} s: {refused} requests refused", outage.as_secs()));
    for kill in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(500..4000)));
        server.kill();
        std::thread::sleep(Duration::from_millis(random.random_range(0..3000)));
        server.restart()?;
        tally.kills = kill;
    }
    prometheus.quiet()?;
    let started = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let theirs = prometheus.dump()?;
        let ours = dump(&server)?;
        (tally.issued, tally.acked) = (theirs.len() as u64, theirs.intersection(&ours).count() as u64);
        tally.missing = tally.issued - tally.acked;
        tally.spurious = ours.difference(&theirs).count() as u64;
        if (tally.missing == 0 && tally.spurious == 0) || started.elapsed() > CATCH_UP {
            break;
        }
    }
    tell(format!(
        "{} samples scraped, {} missing, {} that nobody scraped",
        tally.issued, tally.missing, tally.spurious
    ));
    ensure!(tally.issued > 10_000, "too few samples for the bar to mean anything");
    drop(prometheus);
    server.kill();
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// Requests that were refused since the start, by /metrics.
fn refusals(server: &Server) -> anyhow::Result<f64> {
    let (_, text) = server.get("/metrics", &server.responder)?;
    let refused = text.lines().filter(|line| {
        line.starts_with("wardroom_intake_rejected_records_total{") && line.contains("reason=\"storage_unavailable\"")
    });
    Ok(refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn dump(server: &Server) -> anyhow::Result<BTreeSet<String>> {
    let data = server.dir.join("data").display().to_string();
    let (code, text) = server::run(&["samples", "dump", "--data", &data])?;
    ensure!(code == Some(0), "samples dump failed");
    Ok(text.lines().map(str::to_owned).collect())
}

struct Prometheus {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Prometheus {
    /// One that scrapes itself every second, with the sender's configuration of the documentation.
    #[expect(clippy::disallowed_methods, reason = "the oracle is a program")]
    fn start(dir: &Path, server: &Server) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(dir.join("token"), &server.sender)?;
        let page = include_str!("../../../docs/sources/prometheus.md");
        let sender = page.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```")).context("no example")?.0;
        let token = dir.join("token").display().to_string();
        let sender = sender.replace("http://127.0.0.1:8080", &server.url);
        let sender = sender.replace("/etc/prometheus/wardroom-token", &token);
        ensure!(sender.contains(&server.url) && sender.contains(&token), "the example has changed");
        let scrape = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: self\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
        );
        std::fs::write(dir.join("prometheus.yml"), format!("{scrape}{sender}"))?;
        let child = Command::new(server::program("PROMETHEUS_BIN"))
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-lifecycle")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("prometheus.log"))?)
            .spawn()?;
        Ok(Self { dir: dir.to_owned(), port, child })
    }

    /// Takes its targets away: their series end, and then nothing new comes.
    fn quiet(&self) -> anyhow::Result<()> {
        let file = self.dir.join("prometheus.yml");
        let busy = std::fs::read_to_string(&file)?;
        let target = format!("['127.0.0.1:{}']", self.port);
        ensure!(busy.contains(&target), "no target to take away");
        std::fs::write(file, busy.replace(&target, "[]"))?;
        let answer = ureq::post(format!("http://127.0.0.1:{}/-/reload", self.port)).send(&[] as &[u8])?;
        ensure!(answer.status().is_success(), "reload: {}", answer.status());
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the oracle is a program")]
    fn dump(&self) -> anyhow::Result<BTreeSet<String>> {
        let output =
            Command::new(server::program("PROMTOOL_BIN")).args(["tsdb", "dump"]).arg(self.dir.join("tsdb")).output()?;
        ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It is only a witness: what it leaves unsaved does not matter.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
