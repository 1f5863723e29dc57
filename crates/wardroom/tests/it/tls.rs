//! TLS of every listener of the shipped binary: the certificate is replaced while requests run, in the sandbox.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use wardroom_testing::{Server, TestAuthority};

/// Longest wait for the server to look at its files: it does so every ten seconds.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that trusts some authorities; every request is a new connection.
fn client(authorities: &[&TestAuthority]) -> ureq::Agent {
    let read =
        |authority: &&TestAuthority| Certificate::from_pem(&std::fs::read(&authority.certificate).unwrap()).unwrap();
    let roots = RootCerts::new_with_certs(&authorities.iter().map(read).collect::<Vec<_>>());
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(0)
        .timeout_global(Some(Duration::from_secs(20)))
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    config.build().new_agent()
}

fn get(client: &ureq::Agent, url: &str) -> Result<(u16, String), String> {
    let mut response = client.get(url).call().map_err(|error| error.to_string())?;
    let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    Ok((response.status().as_u16(), text))
}

fn readiness(client: &ureq::Agent, url: &str) -> Value {
    serde_json::from_str(&get(client, &format!("{url}/readyz")).unwrap().1).unwrap()
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Signals every process of the server, as a service manager does: only the server has something to do.
fn hang_up(server: &Server) {
    let processes = server.processes();
    let pids = processes.iter().map(|(_, pid)| pid.to_string());
    assert!(Command::new("kill").arg("-HUP").args(pids).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.processes(), processes);
}

/// A folder for certificates beside the data, as the sandbox needs it.
fn issue(folder: &Path, authority: &TestAuthority) -> (String, String) {
    let (cert, key) = (folder.join("server.pem"), folder.join("server.key"));
    authority.issue_server(&cert, &key).unwrap();
    (cert.display().to_string(), key.display().to_string())
}

#[test]
fn the_certificate_is_replaced_without_a_failed_request_and_a_broken_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (authorities, folder) = (dir.path().join("authorities"), dir.path().join("tls"));
    [&authorities, &folder].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let (first, second) =
        (TestAuthority::new(&authorities, "first").unwrap(), TestAuthority::new(&authorities, "second").unwrap());
    let (cert, key) = issue(&folder, &first);
    let environment = [
        ("WARDROOM_EDGE__TLS__CERT_FILE", cert.as_str()),
        ("WARDROOM_EDGE__TLS__KEY_FILE", key.as_str()),
        ("WARDROOM_EDGE__OTLP_GRPC", "127.0.0.1:0"),
    ];
    let server = Server::start(&dir.path().join("server"), "", &environment).unwrap();
    let url = server.url.replace("http://", "https://");
    let (both, only_first) = (client(&[&first, &second]), client(&[&first]));
    let ready = readiness(&only_first, &url);
    assert_eq!((&ready["tls"], &ready["status"]), (&Value::from("ok"), &Value::from("ready")), "{ready}");
    let grpc = format!("https://{}/healthz", ready["otlp_grpc"].as_str().unwrap());
    assert_eq!(get(&only_first, &grpc).unwrap().0, 200, "the listener for OTLP over gRPC");
    let (status, text) = server.get("/readyz", "").unwrap();
    assert!(status == 400 && text.contains("https://"), "without TLS: {status} {text}");

    // The command line, which trusts an authority only if an option names it.
    let (ca, token) = (first.certificate.to_str().unwrap(), server.responder_token.as_str());
    let list = ["incidents", "list", "--url", &url, "--token", token];
    assert_eq!(server.run(&list).unwrap().0, Some(7));
    assert_eq!(server.run(&[&list[..], &["--ca-file", ca]].concat()).unwrap().0, Some(0));
    let missing = ["--ca-file", "/nonexistent/ca.pem"];
    assert_eq!(server.run(&[&list[..], &missing].concat()).unwrap().0, Some(2));

    // Replaced under load.
    let (is_done, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    assert_eq!(get(&both, &format!("{url}/healthz")).unwrap().0, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        issue(&folder, &second);
        hang_up(&server);
        wait_until("the new certificate", || get(&only_first, &format!("{url}/healthz")).is_err());
        std::thread::sleep(Duration::from_millis(200));
        is_done.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    let only_second = client(&[&second]);
    assert_eq!(readiness(&only_second, &url)["tls"], "ok");

    // A broken pair, found without a signal.
    std::fs::write(folder.join("server.pem"), "half a certificate").unwrap();
    wait_until("/readyz says it", || readiness(&only_second, &url)["status"] == "degraded");
    let reason = readiness(&only_second, &url)["tls"].as_str().unwrap().to_owned();
    assert!(
        reason.starts_with("http: cert-file: ") && reason.contains("the last certificate stays in force"),
        "{reason}"
    );
    let metrics = get(&only_second, &format!("{url}/metrics")).unwrap().1;
    let expiry = |line: &&str| line.starts_with("wardroom_tls_certificate_expiry_seconds{listener=\"otlp_grpc\"} ");
    let expiry: f64 = metrics.lines().find(expiry).unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let days = (expiry - wardroom_testing::now_ms() as f64 / 1000.0) / 86_400.0;
    assert!((29.0..=30.0).contains(&days), "{days}");
    let log = std::fs::read_to_string(server.dir.join("wardroom.log")).unwrap();
    assert!(log.contains("the new certificate cannot be used"), "{log}");
    issue(&folder, &second);
    hang_up(&server);
    wait_until("the repaired pair", || readiness(&only_second, &url)["tls"] == "ok");
}

#[test]
fn config_check_reads_the_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = TestAuthority::new(dir.path(), "authority").unwrap();
    let (cert, key) = issue(dir.path(), &authority);
    let file = dir.path().join("wardroom.yaml");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tls.md")).unwrap();
    let block = page.split("```").nth(1).unwrap();
    let documented = block.split_once('\n').unwrap().1;
    let check = |cert: &str, key: &str| {
        let text = documented.replace("/etc/wardroom/tls/server.pem", cert);
        let text = text.replace("/etc/wardroom/tls/server.key", key);
        std::fs::write(&file, text).unwrap();
        let program = wardroom_testing::server::program("WARDROOM_BIN");
        let output = Command::new(program).args(["config", "check", "--config"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&cert, &key).0, Some(0), "{}", check(&cert, &key).1);
    let (code, text) = check(authority.certificate.to_str().unwrap(), &key);
    assert!(code == Some(1) && text.contains("field edge.tls.key-file: ") && text.contains("not the key"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = check(&cert, &key);
    assert!(code == Some(1) && text.contains("chmod 600"), "{text}");
}
