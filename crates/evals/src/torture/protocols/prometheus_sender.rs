//! Bar 1e: a real Prometheus loses no sample while the receiver returns 503 and is then killed repeatedly.
//!
//! Both sides are dumped and compared line by line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, server};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::strace::Strace;

/// Time of refusals per kill; the long form, 20 kills, refuses for ten minutes.
const REFUSAL_DURATION_PER_KILL: Duration = Duration::from_secs(30);
/// Time of refusals in the short form of one kill: longer than the sender's largest backoff.
const SHORT_REFUSAL_DURATION: Duration = Duration::from_secs(20);
/// Time for Prometheus to start scraping and sending.
const WARM_UP_DURATION: Duration = Duration::from_secs(3);
/// Prometheus writes stale markers a few scrape intervals after a target was removed.
const STALE_MARKER_DELAY: Duration = Duration::from_secs(5);
/// Prometheus must send its backlog within this time.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(240);
/// Minimum number of scraped samples for a valid result.
const MIN_SAMPLES: u64 = 10_000;

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("1e")?;
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", options.mutant_name())])?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let prometheus = Prometheus::start(&dir, &server)?;
    std::thread::sleep(WARM_UP_DURATION);
    let outage = match options.kills {
        0 | 1 => SHORT_REFUSAL_DURATION,
        kills => REFUSAL_DURATION_PER_KILL * u32::try_from(kills)?,
    };
    let strace = Strace::attach(&server, &["inject=fdatasync:error=EIO:when=1+"])?;
    std::thread::sleep(outage);
    let refused = refused_requests(&server)?;
    drop(strace);
    let mut result = BarResult::default();
    if refused < outage.as_secs_f64() / 30.0 {
        result.faults.push(format!("only {refused} requests were refused, too few for a result"));
    }
    print_progress(format!("503 for {} s: {refused} requests refused", outage.as_secs()));
    for kill in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(500..4000)));
        server.kill();
        std::thread::sleep(Duration::from_millis(random.random_range(0..3000)));
        server.restart()?;
        result.kills = kill;
    }
    prometheus.stop_scraping()?;
    std::thread::sleep(STALE_MARKER_DELAY);
    let started = Instant::now();
    loop {
        let scraped = prometheus.dump()?;
        let received = dump(&server)?;
        (result.issued, result.acked) = (scraped.len() as u64, scraped.intersection(&received).count() as u64);
        result.missing = result.issued - result.acked;
        result.spurious = received.difference(&scraped).count() as u64;
        if (result.missing == 0 && result.spurious == 0) || started.elapsed() > CATCH_UP_TIMEOUT {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    print_progress(format!(
        "{} samples scraped, {} missing, {} never scraped",
        result.issued, result.missing, result.spurious
    ));
    ensure!(result.issued > MIN_SAMPLES, "{} scraped samples are too few for a result", result.issued);
    drop(prometheus);
    server.kill();
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// Returns the number of requests refused since the start, from /metrics.
fn refused_requests(server: &Server) -> anyhow::Result<f64> {
    let (_, text) = server.get("/metrics", &server.responder_token)?;
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
    /// Starts a Prometheus that scrapes itself every second, with the `remote_write` section of the documentation.
    #[expect(clippy::disallowed_methods, reason = "the oracle is a separate program")]
    fn start(dir: &Path, server: &Server) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(dir.join("token"), &server.sender_token)?;
        let page = include_str!("../../../../../docs/sources/prometheus.md");
        let sender = page
            .split_once("```yaml\n")
            .and_then(|(_, rest)| rest.split_once("```"))
            .context("docs/sources/prometheus.md has no YAML example")?
            .0;
        let token = dir.join("token").display().to_string();
        let sender = sender.replace("http://127.0.0.1:8080", &server.url);
        let sender = sender.replace("/etc/prometheus/wardroom-token", &token);
        ensure!(
            sender.contains(&server.url) && sender.contains(&token),
            "the example of docs/sources/prometheus.md has no receiver URL or token file"
        );
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

    /// Removes the scrape targets: their series end with stale markers, and no new samples follow.
    fn stop_scraping(&self) -> anyhow::Result<()> {
        let file = self.dir.join("prometheus.yml");
        let config = std::fs::read_to_string(&file)?;
        let target = format!("['127.0.0.1:{}']", self.port);
        ensure!(config.contains(&target), "the configuration has no target");
        std::fs::write(file, config.replace(&target, "[]"))?;
        let response = ureq::post(format!("http://127.0.0.1:{}/-/reload", self.port)).send(&[] as &[u8])?;
        ensure!(response.status().is_success(), "reload: {}", response.status());
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the oracle is a separate program")]
    fn dump(&self) -> anyhow::Result<BTreeSet<String>> {
        let output =
            Command::new(server::program("PROMTOOL_BIN")).args(["tsdb", "dump"]).arg(self.dir.join("tsdb")).output()?;
        ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data has been dumped already, so it needs no orderly shutdown.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
