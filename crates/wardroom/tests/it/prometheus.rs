//! Prometheus remote_write through restarts of the server: both sides end with the same samples.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wardroom_testing::server::{program, run};

use crate::server;

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn start(dir: &Path, url: &str, token: &str) -> (Prometheus, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(dir.join("token"), token).unwrap();
    // Uses the configuration of the documentation.
    let page = include_str!("../../../../docs/sources/prometheus.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (sender, _) = rest.split_once("```").unwrap();
    let sender = sender
        .replace("http://127.0.0.1:8080", url)
        .replace("/etc/prometheus/wardroom-token", &dir.join("token").display().to_string());
    let config = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: self\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n  \
         - job_name: gone\n    static_configs:\n      - targets: ['127.0.0.1:1']\n{sender}"
    );
    assert!(config.contains(url) && config.contains(&dir.display().to_string()));
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    let child = Command::new(program("PROMETHEUS_BIN"))
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--web.enable-lifecycle")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("prometheus.log")).unwrap())
        .spawn()
        .unwrap();
    (Prometheus(child), port)
}

fn dump(dir: &Path) -> BTreeSet<String> {
    let output = Command::new(program("PROMTOOL_BIN")).args(["tsdb", "dump"]).arg(dir.join("tsdb")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn remote_write_loses_no_sample_through_three_restarts() {
    let (dir, mut server) = server();
    let (prometheus, port) = start(dir.path(), &server.url, &server.sender_token);
    std::thread::sleep(Duration::from_secs(8));
    for graceful in [false, true, false] {
        if graceful {
            assert_eq!(server.stop().unwrap(), Some(0));
        } else {
            server.kill();
        }
        std::thread::sleep(Duration::from_secs(3));
        server.restart().unwrap();
        std::thread::sleep(Duration::from_secs(6));
    }
    // Without targets, the series end with stale markers and no new samples arrive.
    let with_targets = std::fs::read_to_string(dir.path().join("prometheus.yml")).unwrap();
    let without_targets: Vec<String> = with_targets
        .lines()
        .map(|line| {
            line.split_once("targets:").map_or_else(|| line.to_owned(), |(head, _)| format!("{head}targets: []"))
        })
        .collect();
    std::fs::write(dir.path().join("prometheus.yml"), without_targets.join("\n")).unwrap();
    let reload = ureq::post(format!("http://127.0.0.1:{port}/-/reload")).send(&[] as &[u8]).unwrap();
    assert!(reload.status().is_success());
    // Prometheus writes the markers some intervals after a target is removed.
    std::thread::sleep(Duration::from_secs(10));
    let data = dir.path().join("data").display().to_string();
    let (mut sent, mut received) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..20 {
        std::thread::sleep(Duration::from_secs(3));
        sent = dump(dir.path());
        let (code, text) = run(&["samples", "dump", "--data", &data]).unwrap();
        assert_eq!(code, Some(0));
        received = text.lines().map(str::to_owned).collect();
        if sent == received {
            break;
        }
    }
    drop(prometheus);
    let missing: Vec<_> = sent.difference(&received).take(5).collect();
    let extra: Vec<_> = received.difference(&sent).take(5).collect();
    assert!(sent.len() > 1000, "Prometheus has only {} samples", sent.len());
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    let (_, json) =
        run(&["samples", "dump", "--format", "json", "--data", &data, "--match", "up{job=\"self\"}"]).unwrap();
    assert!(json.lines().last().unwrap().contains("7ff0000000000002"), "the series does not end with a stale marker");
}
