//! Backup beside a running server, and restore to an empty folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use wardroom_testing::server::program;
use wardroom_testing::{Server, now_ms, remote_write};

use crate::lake::{FLUSH_IMMEDIATELY, wait_for_lake};

fn wardroom(arguments: &[&str]) -> Output {
    Command::new(program("WARDROOM_BIN")).args(arguments).output().unwrap()
}

fn run_json(arguments: &[&str]) -> Value {
    let output = wardroom(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run_failing(arguments: &[&str]) -> String {
    let output = wardroom(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Sends samples, a log line and a deployment of one minute.
fn send(server: &Server, minute: i64) {
    let at = now_ms() - 3_600_000 + minute * 60_000;
    let series = |n: i64| {
        let n_text = n.to_string();
        remote_write::series(&[("__name__", "kept"), ("n", &n_text)], (minute * 10 + n) as f64 / 10.0, at)
    };
    assert_eq!(server.write(&remote_write::body((0..20).map(series).collect())).unwrap(), 204);
    let time = wardroom_domain::Timestamp::from_millis(at);
    let log =
        json!({ "timestamp": time, "level": "ERROR", "message": format!("minute {minute} failed"), "service": "web" });
    assert_eq!(server.post_json("/ingest/logs", &server.sender_token, &log).unwrap().0, 200);
    let deployment =
        json!({ "timestamp": time, "service": "web", "version": format!("1.{minute}"), "status": "success" });
    assert_eq!(server.post_json("/ingest/deployment", &server.sender_token, &deployment).unwrap().0, 200);
}

/// Results of typical queries.
fn query_results(server: &Server) -> Vec<String> {
    let dump = Command::new(program("WARDROOM_BIN"))
        .args(["samples", "dump", "--format", "json", "--match", "kept", "--url", &server.url])
        .env("WARDROOM_TOKEN", &server.responder_token)
        .output()
        .unwrap();
    assert!(dump.status.success());
    let mut all = vec![String::from_utf8(dump.stdout).unwrap()];
    for query in [
        "SELECT service, message FROM logs ORDER BY message",
        "SELECT version, ts FROM deployments ORDER BY ts",
        "SELECT value, \"timestamp\" FROM metrics WHERE metric_name = 'kept' ORDER BY \"timestamp\", value",
    ] {
        let (status, response) =
            server.post_json("/api/v1/sql?format=json", &server.responder_token, &json!({ "query": query })).unwrap();
        assert_eq!(status, 200, "{query}: {response}");
        all.push(response.to_string());
    }
    for path in ["/api/v1/incidents", "/api/v1/anomalies?since=1970-01-01T00:00:00Z"] {
        let (status, response) = server.get(path, &server.responder_token).unwrap();
        assert_eq!(status, 200, "{path}: {response}");
        all.push(response);
    }
    all
}

#[test]
fn restored_backup_returns_the_same_query_results() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [FLUSH_IMMEDIATELY[0], FLUSH_IMMEDIATELY[1], ("WARDROOM_CHECKPOINT__INTERVAL_SECONDS", "1")];
    let mut server = Server::start(&dir.path().join("first"), "", &environment).unwrap();
    let (data, to) = (dir.path().join("first/data"), dir.path().join("backups"));
    let arguments = ["backup", "--data", text(&data), "--to", text(&to), "--json"];
    (0..10).for_each(|minute| send(&server, minute));
    wait_for_lake(&server);
    let dry = run_json(&[&arguments[..], &["--dry-run"]].concat());
    assert!(dry["files"].as_u64() > Some(10) && !to.exists(), "{dry}");
    // An interrupted backup, which the next one removes.
    std::fs::create_dir_all(to.join(".2026-11-25T00-00-00.000Z/bus")).unwrap();
    let first = run_json(&arguments);
    let names = || std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names().all(|name| name == ".lock" || !name.starts_with('.')), "{:?}", names().collect::<Vec<_>>());
    assert_eq!(first["linked_bytes"], 0, "{first}");
    // During the copy, part of the data is in the tables and part on the bus only.
    (10..20).for_each(|minute| send(&server, minute));
    wait_for_lake(&server);
    let second = std::thread::scope(|scope| {
        let backup = scope.spawn(|| run_json(&arguments));
        (20..25).for_each(|minute| send(&server, minute));
        backup.join().unwrap()
    });
    assert!(second["linked_bytes"].as_u64() > Some(0), "unchanged files are not linked: {second}");
    let metrics = server.get("/metrics", &server.responder_token).unwrap().1;
    assert!(metrics.contains("wardroom_backup_last_success_timestamp_seconds 1"), "{metrics}");
    server.kill();

    // The third backup is made without a running server, so the results must be identical.
    server.restart().unwrap();
    wait_for_lake(&server);
    let expected = query_results(&server);
    assert!(expected[0].lines().count() == 500 && expected[1].contains("minute 24"), "{expected:?}");
    let kept = run_json(&[&arguments[..], &["--keep", "2"]].concat());
    assert_eq!(kept["removed"], json!([first["path"]]), "the oldest backup is removed");
    server.kill();
    let restored = dir.path().join("second");
    std::fs::create_dir_all(&restored).unwrap();
    std::fs::rename(dir.path().join("first/secrets"), restored.join("secrets")).unwrap();
    let to_data = restored.join("data");
    let found = run_json(&["restore", "--from", text(&to), "--data", text(&to_data), "--verify", "--json"]);
    let verified = &found["verified"];
    assert!(
        verified["bus"]["end"].as_u64() > Some(70) && verified["tables"][0]["rows"].as_u64() > Some(400),
        "{found}"
    );
    // Hide the original folder.
    std::fs::rename(dir.path().join("first"), dir.path().join("gone")).unwrap();
    let other = server.start_on_copy(&restored).unwrap();
    wait_for_lake(&other);
    assert_eq!(query_results(&other), expected);
    send(&other, 30);
    wait_for_lake(&other);
    drop(other);

    // The second backup contains everything acknowledged before it started.
    let third = dir.path().join("third");
    let middle = PathBuf::from(second["path"].as_str().unwrap());
    run_json(&["restore", "--from", text(&middle), "--data", text(&third.join("data")), "--verify", "--json"]);
    std::fs::rename(restored.join("secrets"), third.join("secrets")).unwrap();
    let other = server.start_on_copy(&third).unwrap();
    wait_for_lake(&other);
    let minutes = |text: &str| (0..25).filter(|minute| text.contains(&format!("minute {minute} failed"))).count();
    let found = query_results(&other);
    assert!(minutes(&found[1]) >= 20 && found[0].lines().count() >= 400, "{found:?}");

    let error = run_failing(&["restore", "--from", text(&to), "--data", text(&to_data)]);
    assert!(error.contains("is not empty"), "{error}");
    let inside = to_data.join("backups");
    let wrong = ["backup", "--data", text(&to_data), "--to", text(&inside)];
    assert!(run_failing(&wrong).contains("inside the data folder"));
    // A flipped bit is detected, and the error names the file.
    let segment = std::fs::read_dir(middle.join("bus")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let fourth = dir.path().join("fourth");
    let error = run_failing(&["restore", "--from", text(&middle), "--data", text(&fourth)]);
    assert!(error.contains(segment.file_name().unwrap().to_str().unwrap()) && error.contains("damaged"), "{error}");
}

#[test]
fn supervisor_makes_scheduled_backups() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backups");
    let server = Server::start(dir.path(), "", &[("WARDROOM_BACKUP__TO", text(&to))]).unwrap();
    let complete = || {
        let folders = std::fs::read_dir(&to).into_iter().flatten().map(|entry| entry.unwrap().path());
        folders.filter(|folder| folder.join("manifest.json").exists()).count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while complete() == 0 {
        let log = || std::fs::read_to_string(dir.path().join("wardroom.log")).unwrap_or_default();
        assert!(std::time::Instant::now() < deadline, "no backup was made: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    drop(server);
}
