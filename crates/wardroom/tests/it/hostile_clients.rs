//! Pages, connections and bodies that were made to harm, and telemetry that was made to deceive.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::Value;
use wardroom_testing::server::{create_token, run};
use wardroom_testing::{Server, now_ms, remote_write};

use crate::server;

const PROTOBUF: [(&str, &str); 2] = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
/// 31 MiB claimed by six bytes of snappy.
const CLAIM: [u8; 6] = [0x80, 0x80, 0xc0, 0x0f, 0x00, 0x61];

#[test]
fn a_page_of_another_origin_changes_nothing_with_cached_credentials() {
    let (_dir, server) = server();
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("alice:{}", server.responder_token));
    let basic = ("Authorization", format!("Basic {encoded}"));
    let own = server.url.clone();
    let (_, text) = server.get("/openapi.json", "").unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut routes = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if operations.get("post").is_none() || operations["post"]["x-access"] == "public" {
            continue;
        }
        routes += 1;
        let path = path.replace("{id}", "INC-1").replace("{offset}", "1");
        let code = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = [("Authorization", basic.1.as_str())].iter().chain(headers).copied().collect();
            let (status, _, text) = server.post(&path, "", &headers, b"{}").unwrap();
            (status, serde_json::from_str::<Value>(&text).unwrap_or_default()["code"].as_str().map(str::to_owned))
        };
        for evil in [("Origin", "http://localhost:18159"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
            assert_eq!(code(&[evil]), (403, Some("wrong_origin".to_owned())), "{path} {evil:?}");
        }
        assert_ne!(code(&[("Origin", &own)]).1.as_deref(), Some("wrong_origin"), "{path}");
        assert_ne!(code(&[]).1.as_deref(), Some("wrong_origin"), "{path} from a program");
    }
    assert!(routes >= 8, "{routes} routes");
}

#[test]
fn silent_connections_do_not_lock_anybody_out() {
    let (_dir, server) = server();
    let address = server.url.strip_prefix("http://").unwrap();
    // More than the limit of an address, and fewer than the usual limit of descriptors of this process.
    let silent: Vec<TcpStream> = (0..800).map(|_| TcpStream::connect(address).unwrap()).collect();
    let started = Instant::now();
    assert_eq!(server.get("/healthz", "").unwrap().0, 200);
    let body = remote_write::body(vec![remote_write::series(&[("__name__", "up")], 1.0, now_ms())]);
    assert_eq!(server.write(&body).unwrap(), 204);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let mut last = silent.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap_or(0), 0, "closed after the header timeout");
    let (_, metrics) = server.get("/metrics", "").unwrap();
    assert!(metrics.contains("wardroom_http_connections_closed_total{reason=\"evicted\"}"), "{metrics}");
}

#[test]
fn bombs_do_not_delay_an_honest_sender() {
    let (dir, server) = server();
    let bomber = create_token(&dir.path().join("data"), "bomber", "sender").unwrap();
    std::thread::sleep(Duration::from_millis(900));
    let (status, _, text) = server.post("/api/v1/write", &bomber, &PROTOBUF, &CLAIM).unwrap();
    assert_eq!((status, text.contains("malformed")), (400, true), "{text}");
    // 1.4 MB of valid snappy that holds 30 MiB of nothing.
    let bomb = remote_write::compress(&vec![0; 30 << 20]);
    let honest = remote_write::body(vec![remote_write::series(&[("__name__", "up")], 1.0, now_ms())]);
    let median = || {
        let mut times: Vec<Duration> = (0..40)
            .map(|_| {
                let started = Instant::now();
                assert_eq!(server.write(&honest).unwrap(), 204);
                started.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[20]
    };
    let quiet = median();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        for body in [&CLAIM[..], &bomb].into_iter().cycle().take(8) {
            let (stop, server, bomber) = (&stop, &server, &bomber);
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _answer = server.post("/api/v1/write", bomber, &PROTOBUF, body);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        let beside = median();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        beside
    });
    // The bombers and the server share the CPUs of this machine.
    assert!(beside < quiet * 20 + Duration::from_millis(100), "{quiet:?} alone, {beside:?} beside bombs");
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &[("WARDROOM_EDGE__BODY_TIMEOUT_SECONDS", "1")]).unwrap();
    for path in ["/api/v1/sql", "/api/v1/incidents/INC-1/verdict", "/api/v1/write", "/api/v1/series"] {
        let token = if path.ends_with("write") { &server.sender_token } else { &server.responder_token };
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\
             Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\r\nSELECT"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = vec![0; 12];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(String::from_utf8_lossy(&text), "HTTP/1.1 503", "{path}");
    }
}

#[test]
fn any_name_of_the_server_is_accepted_with_authentication() {
    let (_dir, server) = server();
    let address = server.url.strip_prefix("http://").unwrap();
    let answer = |host: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let text = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let text = answer("anything.example");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.to_lowercase().contains("x-content-type-options: nosniff"), "{text}");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let (_dir, server) = server();
    let print = |arguments: &[&str]| {
        let credentials = ["--url", &server.url, "--token", &server.responder_token];
        run(&[arguments, &credentials[..]].concat()).unwrap()
    };
    let query = "SELECT '\u{1b}[2J\u{9b}H\u{202e}end' AS message";
    let (code, table) = print(&["sql", query]);
    assert_eq!((code, table.contains("␛[2J�H�end")), (Some(0), true), "{table}");
    let (_, json) = print(&["sql", query, "--format", "json"]);
    let rows: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows[0]["message"], "\u{1b}[2J\u{9b}H\u{202e}end", "JSON keeps the value");
    assert!(!json.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{json}");
}

#[test]
fn tokens_and_configuration_are_audited() {
    let (dir, mut server) = server();
    let data = dir.path().join("data").display().to_string();
    let entries = || {
        let (code, verified) = run(&["audit", "verify", "--json", "--data", &data]).unwrap();
        assert_eq!(code, Some(0), "{verified}");
        serde_json::from_str::<Value>(&verified).unwrap()["entries"].as_i64().unwrap()
    };
    // Those on the executor's file are written once the executor responds.
    let wait_for = |expected: i64, what: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while entries() < expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(entries(), expected, "{what}");
    };
    let before = 4;
    wait_for(before, "two tokens, the configuration of the first start and the executor's file");
    create_token(dir.path().join("data").as_path(), "vera", "viewer").unwrap();
    assert_eq!(entries(), before + 1);
    server.restart().unwrap();
    assert_eq!(entries(), before + 1, "nothing changed");
    server.set_environment("WARDROOM_DETECT__Z_WARNING", "2.9");
    server.restart().unwrap();
    assert_eq!(entries(), before + 2);
    server.write_executor_config("  - tool: process\n    name: cart\n    url: http://127.0.0.1:1\n").unwrap();
    wait_for(before + 3, "the executor's file has changed");
}
