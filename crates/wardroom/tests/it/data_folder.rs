//! What people do to a data folder: two servers on it, parts deleted or replaced, a path that is too long.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{create_token, program};
use wardroom_testing::{Server, now_ms, remote_write};

use crate::lake::{FLUSH_IMMEDIATELY, wait_for_lake};

/// How long a server that must not start may take to say so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(20);

fn wardroom(arguments: &[&str]) -> Output {
    Command::new(program("WARDROOM_BIN")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must fail, and returns what it says.
fn refused(arguments: &[&str]) -> String {
    let output = wardroom(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    stderr
}

fn spawn_serve(data: &Path, arguments: &[&str], stderr: Stdio) -> Child {
    let mut serve = Command::new(program("WARDROOM_BIN"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data", text(data)]).args(arguments);
    serve.env("WARDROOM_EDGE__OTLP_GRPC", "off").stdout(Stdio::piped()).stderr(stderr);
    serve.spawn().unwrap()
}

/// Runs `serve`, which must not start, and returns what it says.
fn serve_refused(data: &Path) -> String {
    let mut child = spawn_serve(data, &[], Stdio::piped());
    let deadline = Instant::now() + REFUSAL_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the server has started");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(!status.success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

/// Environment of a server that writes checkpoints and tables at once.
const EAGER: [(&str, &str); 3] =
    [FLUSH_IMMEDIATELY[0], FLUSH_IMMEDIATELY[1], ("WARDROOM_CHECKPOINT__INTERVAL_SECONDS", "1")];

/// Sends a sample of a series of its own for each number.
fn send(server: &Server, name: &str, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let labels = [("__name__", name), ("n", &number.to_string())];
        let series = remote_write::series(&labels, number as f64, now_ms() - 100_000);
        assert_eq!(server.write(&remote_write::body(vec![series])).unwrap(), 204);
    }
}

fn dumped(server: &Server, name: &str) -> usize {
    let dump = Command::new(program("WARDROOM_BIN"))
        .args(["samples", "dump", "--format", "json", "--match", name, "--url", &server.url])
        .env("WARDROOM_TOKEN", &server.responder_token)
        .output()
        .unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    String::from_utf8(dump.stdout).unwrap().lines().count()
}

fn rows(server: &Server, name: &str) -> Value {
    let query = format!("SELECT count(*) AS n FROM metrics WHERE metric_name = '{name}'");
    let answer = server.post_json("/api/v1/sql?format=json", &server.responder_token, &json!({ "query": query }));
    let (status, answer) = answer.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer[0]["n"].clone()
}

/// Waits for a checkpoint that covers everything sent.
fn wait_for_checkpoint(data: &Path, offset: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let newest = || {
        let names = std::fs::read_dir(data.join("checkpoint")).unwrap().flatten();
        let names = names.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".state")?.parse::<u64>().ok());
        names.max().unwrap_or_default()
    };
    while newest() < offset {
        assert!(Instant::now() < deadline, "no checkpoint at {offset}: {}", newest());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_second_writer_is_refused_with_the_name_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &[]).unwrap();
    let data = dir.path().join("data");
    let holder = server.processes()[0].1;
    let expected = format!("is in use by wardroom serve (process {holder} on ");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    for path in [&data, &link] {
        let said = serve_refused(path);
        assert!(said.contains(&expected), "{said}");
    }
    let epoch = ["bus", "new-epoch", "--data", text(&data)];
    assert!(refused(&epoch).contains(&expected));
    let backups = dir.path().join("backups");
    assert!(wardroom(&["backup", "--data", text(&data), "--to", text(&backups)]).status.success());
    let restore = ["restore", "--from", text(&backups), "--data", text(&data)];
    assert!(refused(&restore).contains(&expected));
    assert!(wardroom(&["lake", "maintain", "--data", text(&data)]).status.success(), "safe beside a server");
    create_token(&data, "bob", "viewer").unwrap();
    send(&server, "still_served", 0..3);
    assert_eq!(dumped(&server, "still_served"), 3);

    // However the server ends, the next one starts; what restore made is a data folder.
    server.restart().unwrap();
    assert_eq!(server.stop().unwrap(), Some(0));
    let restored = dir.path().join("restored");
    let restore = wardroom(&["restore", "--verify", "--from", text(&backups), "--data", text(&restored)]);
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
    server.restart().unwrap();
    assert_eq!(dumped(&server, "still_served"), 3);
}

/// A bus that is gone, or older than the checkpoint and the tables.
#[test]
fn a_bus_that_lost_records_is_refused_until_a_new_epoch_is_started() {
    for lost in ["folder", "segments", "newest records"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path(), "", &EAGER).unwrap();
        let data = dir.path().join("data");
        let bus = data.join("bus");
        let older = dir.path().join("older");
        send(&server, "before", 0..20);
        assert_eq!(server.stop().unwrap(), Some(0));
        assert!(Command::new("cp").arg("-a").arg(&bus).arg(&older).status().unwrap().success());
        server.restart().unwrap();
        send(&server, "before", 20..60);
        wait_for_lake(&server);
        wait_for_checkpoint(&data, 60);
        assert_eq!(server.stop().unwrap(), Some(0));
        match lost {
            "folder" => std::fs::remove_dir_all(&bus).unwrap(),
            "segments" => std::fs::remove_file(bus.join("00000000000000000000.seg")).unwrap(),
            _ => {
                std::fs::remove_dir_all(&bus).unwrap();
                std::fs::rename(&older, &bus).unwrap();
            }
        }
        for _ in 0..2 {
            let said = serve_refused(&data);
            assert!(said.contains("the newest checkpoint is at") && said.contains("bus new-epoch"), "{lost}: {said}");
            assert!(said.contains("the table of samples is at"), "{lost}: {said}");
        }
        let epoch = wardroom(&["bus", "new-epoch", "--json", "--data", text(&data)]);
        assert!(epoch.status.success(), "{lost}: {}", String::from_utf8_lossy(&epoch.stderr));
        let epoch: Value = serde_json::from_slice(&epoch.stdout).unwrap();
        // The server sends itself a few records, too.
        let missing_from = if lost == "newest records" { 20..40 } else { 0..1 };
        assert!(missing_from.contains(&epoch["missing_from"].as_u64().unwrap()), "{lost}: {epoch}");
        assert!(epoch["continues_at"].as_u64().unwrap() >= 60, "{lost}: {epoch}");
        assert!(refused(&["bus", "new-epoch", "--data", text(&data)]).contains("no new epoch is needed"));

        server.restart().unwrap();
        send(&server, "after", 0..30);
        assert_eq!(dumped(&server, "after"), 30, "{lost}");
        wait_for_lake(&server);
        server.restart().unwrap();
        wait_for_lake(&server);
        assert_eq!((rows(&server, "before"), rows(&server, "after")), (json!(60), json!(30)), "{lost}");
        assert_eq!(dumped(&server, "after"), 30, "{lost}");

        let backups = dir.path().join("backups");
        let restored = dir.path().join("restored");
        let backup = wardroom(&["backup", "--data", text(&data), "--to", text(&backups)]);
        assert!(backup.status.success(), "{lost}: {}", String::from_utf8_lossy(&backup.stderr));
        let restore = wardroom(&["restore", "--verify", "--from", text(&backups), "--data", text(&restored)]);
        assert!(restore.status.success(), "{lost}: {}", String::from_utf8_lossy(&restore.stderr));
    }
}

/// Nothing was processed durably yet: neither a checkpoint nor a table says that there were records.
#[test]
fn a_bus_that_is_deleted_in_the_first_minute_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &[]).unwrap();
    let data = dir.path().join("data");
    send(&server, "before", 0..3);
    let deadline = Instant::now() + REFUSAL_TIMEOUT;
    while !data.join("state/bus-end").exists() {
        assert!(Instant::now() < deadline, "the end of the bus is not noted");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.kill();
    std::fs::remove_dir_all(data.join("bus")).unwrap();
    let said = serve_refused(&data);
    assert!(said.contains("the last acknowledged request is at") && said.contains("bus new-epoch"), "{said}");
    assert!(wardroom(&["bus", "new-epoch", "--data", text(&data)]).status.success());
    server.restart().unwrap();
    send(&server, "after", 0..3);
}

#[test]
fn a_missing_database_beside_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &[]).unwrap();
    let data = dir.path().join("data");
    send(&server, "before", 0..3);
    let (_, ready) = server.get("/readyz", "").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&ready).unwrap()["store"], "ok");
    assert_eq!(server.stop().unwrap(), Some(0));
    for name in ["wardroom.db", "wardroom.db-wal", "wardroom.db-shm"] {
        drop(std::fs::remove_file(data.join("state").join(name)));
    }
    let said = serve_refused(&data);
    assert!(said.contains("is missing or empty, but the data folder has telemetry on the bus"), "{said}");
    let create = ["token", "create", "--principal", "bob", "--role", "sender", "--data", text(&data)];
    assert!(refused(&create).contains("--new-database"));
    std::fs::write(data.join("state/wardroom.db"), "").unwrap();
    assert!(serve_refused(&data).contains("is missing or empty"));
    let created = wardroom(&[&create[..], &["--new-database", "--json"]].concat());
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let token: Value = serde_json::from_slice(&created.stdout).unwrap();
    server.sender_token = token["token"].as_str().unwrap().to_owned();
    server.restart().unwrap();
    send(&server, "after", 0..3);
}

#[test]
fn a_damaged_or_deleted_database_is_told_by_readyz() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "", &[]).unwrap();
    let path = dir.path().join("data/state/wardroom.db");
    let store_error = |server: &Server| {
        let deadline = Instant::now() + Duration::from_secs(70);
        loop {
            let (status, ready) = server.get("/readyz", "").unwrap();
            let ready: Value = serde_json::from_str(&ready).unwrap();
            if ready["store"] != "ok" || Instant::now() > deadline {
                return (status, ready["store"].to_string());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let moved = path.with_extension("moved");
    std::fs::rename(&path, &moved).unwrap();
    let (status, error) = store_error(&server);
    assert!(status == 503 && error.contains("deleted or replaced"), "{status} {error}");
    std::fs::rename(&moved, &path).unwrap();
    assert_eq!(server.stop().unwrap(), Some(0));

    // Everything between the schema and the last page.
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len() - 4096;
    bytes[3 * 4096..end].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let mut child = spawn_serve(&dir.path().join("data"), &[], Stdio::piped());
    let deadline = Instant::now() + REFUSAL_TIMEOUT;
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    if let Some(url) = line.trim().strip_prefix("listening ") {
        // The damage is where the start does not read.
        url.clone_into(&mut server.url);
        let (status, error) = store_error(&server);
        child.kill().unwrap();
        assert!(status == 503 && error.contains("damaged"), "{status} {error}");
    } else {
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("damaged"), "{said}");
    }
    child.wait().unwrap();
}

/// Logs go to a full disk, to a pipe without a reader, and nowhere.
#[test]
fn a_log_that_cannot_be_written_does_not_end_the_server() {
    let (reader, closed_pipe) = std::io::pipe().unwrap();
    drop(reader);
    let full_disk = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (name, stderr) in [("full disk", Stdio::from(full_disk)), ("closed pipe", Stdio::from(closed_pipe))] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let sender_token = create_token(&data, "oracle", "sender").unwrap();
        let mut child = spawn_serve(&data, &["--admin-token-file", text(&dir.path().join("token"))], stderr);
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let url = line.trim().strip_prefix("listening ").unwrap_or_else(|| panic!("{name}: {line:?}")).to_owned();
        let agent = ureq_agent();
        for number in 0..5 {
            let series = remote_write::series(&[("__name__", "m")], f64::from(number), now_ms());
            let request = agent.post(format!("{url}/api/v1/write")).header("Content-Type", "application/x-protobuf");
            let request = request.header("Content-Encoding", "snappy");
            let request = request.header("Authorization", format!("Bearer {sender_token}"));
            let answer = request.send(&remote_write::body(vec![series])[..]).unwrap();
            assert_eq!(answer.status(), 204, "{name}");
            assert!(child.try_wait().unwrap().is_none(), "{name}: the server has ended");
        }
        let metrics = agent.get(format!("{url}/metrics")).header("Authorization", format!("Bearer {sender_token}"));
        drop(metrics.call());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
    }
}

fn ureq_agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().new_agent()
}

#[test]
fn a_path_too_long_for_the_socket_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(120));
    let config = dir.path().join("executor.yaml");
    std::fs::write(&config, "approvers: []\n").unwrap();
    let mut child = spawn_serve(&data, &["--executor-config", text(&config)], Stdio::piped());
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!status.success() && said.contains("the executor's socket"), "{said}");
}
