//! OpenTelemetry clients: the SDKs for Python (protobuf, gRPC) and JavaScript (JSON), and the rotel collector.

use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use wardroom_testing::Server;
use wardroom_testing::server::{create_token, program};

use crate::server;

fn script(name: &str) -> String {
    format!("{}/tests/it/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Sends one of each signal with the Python SDK.
fn python(kind: &str, endpoint: &str, token: &str) -> Output {
    let mut python = Command::new(program("CLIENT_PYTHON"));
    python.args([&script("send.py"), kind, endpoint, token]);
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME")).env("PYTHONPATH", program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES"));
    python.output().unwrap()
}

/// Sends one of each signal with the JavaScript SDK. Node resolves packages relative to the script.
fn node(dir: &Path, endpoint: &str, token: &str) -> Output {
    std::os::unix::fs::symlink(program("CLIENT_NODE").join("node_modules"), dir.join("node_modules")).unwrap();
    std::fs::copy(script("send.mjs"), dir.join("send.mjs")).unwrap();
    Command::new("node").arg(dir.join("send.mjs")).args([endpoint, token]).output().unwrap()
}

fn assert_sent(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the samples of a service have arrived.
fn assert_arrived(server: &Server, viewer: &str, service: &str, expect: &[(&str, f64)], histogram: bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let selector = format!("/api/v1/samples?match[]=%7Bservice_name%3D%22{service}%22%7D");
    loop {
        let (status, text) = server.get(&selector, viewer).unwrap();
        // A new token is valid within a second; some clients finish earlier.
        if status == 401 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        assert_eq!(status, 200, "{text}");
        let page: Value = serde_json::from_str(&text).unwrap();
        let series = page["series"].as_array().unwrap();
        let last = |name: &str| {
            let found = series.iter().find(|series| series["labels"]["__name__"] == name)?;
            found["samples"].as_array()?.last()?[1].as_str()?.parse::<f64>().ok()
        };
        let native = series.iter().find(|series| series["labels"]["__name__"] == "size_bytes");
        let native = native.and_then(|series| series["histograms"][0]["count"].as_f64());
        let complete = expect.iter().all(|(name, value)| last(name) == Some(*value));
        if complete && (!histogram || native == Some(5.0)) {
            let info = series.iter().find(|series| series["labels"]["__name__"] == "target_info").unwrap();
            assert_eq!(info["labels"]["service_version"], "1.2.3");
            return;
        }
        assert!(Instant::now() < deadline, "{service}: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn accepted_records(server: &Server, protocol: &str) -> u64 {
    let (_, text) = server.get("/metrics", "").unwrap();
    let name = format!("wardroom_intake_accepted_records_total{{protocol=\"{protocol}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

/// Values that one run of a script produces.
const ORDERS_SAMPLE: (&str, f64) = ("orders_total", 5.0);
const LATENCY_SAMPLE: (&str, f64) = ("latency_seconds_count", 5.0);

#[test]
fn ingests_from_the_opentelemetry_sdks() {
    let (dir, server) = server();
    let viewer = create_token(&server.dir.join("data"), "eve", "viewer").unwrap();
    assert_sent(&python("http", &server.url, &server.sender_token));
    assert_arrived(&server, &viewer, "python-http", &[ORDERS_SAMPLE, LATENCY_SAMPLE, ("queue_depth", 4.0)], true);
    // gRPC on the main port: HTTP/2 is recognised by its connection preface.
    assert_sent(&python("grpc", server.url.strip_prefix("http://").unwrap(), &server.sender_token));
    assert_arrived(&server, &viewer, "python-grpc", &[ORDERS_SAMPLE, LATENCY_SAMPLE, ("queue_depth", 4.0)], true);
    assert_sent(&node(dir.path(), &server.url, &server.sender_token));
    assert_arrived(&server, &viewer, "node-json", &[ORDERS_SAMPLE, LATENCY_SAMPLE], false);
    assert_eq!((accepted_records(&server, "otlp_logs"), accepted_records(&server, "otlp_traces")), (15, 25));
    let (_, text) = server
        .get("/api/v1/query_exemplars?query=rate(orders_total%7Bjob%3D%22python-grpc%22%7D%5B5m%5D)", &viewer)
        .unwrap();
    let response: Value = serde_json::from_str(&text).unwrap();
    let exemplar = &response["data"][0]["exemplars"][0];
    assert_eq!(
        (&exemplar["value"], exemplar["labels"]["trace_id"].as_str().unwrap().len()),
        (&"1".into(), 32),
        "{text}"
    );
    python("grpc", server.url.strip_prefix("http://").unwrap(), "wr_wrong");
    assert_eq!(
        (accepted_records(&server, "otlp_logs"), accepted_records(&server, "otlp_traces")),
        (15, 25),
        "accepted records with an unknown token"
    );
}

struct Rotel(Child);

impl Drop for Rotel {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts rotel with the flags of the documentation.
fn rotel(dir: &Path, server: &Server, protocol: &str) -> (Rotel, u16) {
    let (grpc, http) = (free_port(), free_port());
    let page = include_str!("../../../../docs/sources/opentelemetry.md");
    let (_, rest) = page.split_once("```sh test=ingests_from_a_collector_over_http_and_grpc\n").unwrap();
    let (flags, _) = rest.split_once("```").unwrap();
    let flags = flags.replace("http://127.0.0.1:8080", &server.url).replace("$SENDER_TOKEN", &server.sender_token);
    let flags = flags.replace("--otlp-exporter-protocol http", &format!("--otlp-exporter-protocol {protocol}"));
    assert!(flags.contains(&server.url) && flags.contains(&server.sender_token));
    // Splits like a shell: quoted text is one word.
    let words: Vec<String> = flags
        .replace("\\\n", " ")
        .split('"')
        .enumerate()
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .skip(2)
        .collect();
    let child = Command::new(program("ROTEL_BIN"))
        .arg("start")
        .args(words)
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
        .args(["--batch-timeout", "200ms", "--pid-file"])
        .arg(dir.join(format!("rotel-{protocol}.pid")))
        .arg("--log-file")
        .arg(dir.join(format!("rotel-{protocol}.log")))
        .spawn()
        .unwrap();
    let rotel = Rotel(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", http)).is_err() {
        assert!(Instant::now() < deadline, "rotel did not start; see {}", dir.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    (rotel, http)
}

#[test]
fn ingests_from_a_collector_over_http_and_grpc() {
    let (dir, server) = server();
    let viewer = create_token(&server.dir.join("data"), "eve", "viewer").unwrap();
    for (round, protocol) in (1..).zip(["http", "grpc"]) {
        let (rotel, port) = rotel(dir.path(), &server, protocol);
        assert_sent(&python("http", &format!("http://127.0.0.1:{port}"), "not-for-rotel"));
        assert_arrived(&server, &viewer, "python-http", &[ORDERS_SAMPLE, LATENCY_SAMPLE, ("queue_depth", 4.0)], true);
        let deadline = Instant::now() + Duration::from_secs(20);
        while (accepted_records(&server, "otlp_logs"), accepted_records(&server, "otlp_traces"))
            != (5 * round, 10 * round)
        {
            assert!(
                Instant::now() < deadline,
                "{protocol}: logs {} traces {}",
                accepted_records(&server, "otlp_logs"),
                accepted_records(&server, "otlp_traces")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(rotel);
    }
}
