//! A backup made beside a busy server answers the same questions on an empty machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use wardroom_testing::server::program;
use wardroom_testing::{Server, now_ms, wire};

use crate::lake::{AT_ONCE, settle};

fn wardroom(arguments: &[&str]) -> Output {
    Command::new(program("WARDROOM_BIN")).args(arguments).output().unwrap()
}

fn told(arguments: &[&str]) -> Value {
    let output = wardroom(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = wardroom(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Samples, log lines and a deployment of a minute.
fn send(server: &Server, minute: i64) {
    let at = now_ms() - 3_600_000 + minute * 60_000;
    let series = |n: i64| {
        let n_text = n.to_string();
        wire::series(&[("__name__", "kept"), ("n", &n_text)], (minute * 10 + n) as f64 / 10.0, at)
    };
    assert_eq!(server.write(&wire::body((0..20).map(series).collect())).unwrap(), 204);
    let time = wardroom_domain::Timestamp::from_millis(at);
    let log =
        json!({ "timestamp": time, "level": "ERROR", "message": format!("minute {minute} failed"), "service": "web" });
    assert_eq!(server.json("/ingest/logs", &server.sender, &log).unwrap().0, 200);
    let deployment =
        json!({ "timestamp": time, "service": "web", "version": format!("1.{minute}"), "status": "success" });
    assert_eq!(server.json("/ingest/deployment", &server.sender, &deployment).unwrap().0, 200);
}

/// What people ask.
fn answers(server: &Server) -> Vec<String> {
    let dump = Command::new(program("WARDROOM_BIN"))
        .args(["samples", "dump", "--format", "json", "--match", "kept", "--url", &server.url])
        .env("WARDROOM_TOKEN", &server.responder)
        .output()
        .unwrap();
    assert!(dump.status.success());
    let mut all = vec![String::from_utf8(dump.stdout).unwrap()];
    for query in [
        "SELECT service, message FROM logs ORDER BY message",
        "SELECT version, ts FROM deployments ORDER BY ts",
        "SELECT value, \"timestamp\" FROM metrics WHERE metric_name = 'kept' ORDER BY \"timestamp\", value",
    ] {
        let (status, answer) =
            server.json("/api/v1/sql?format=json", &server.responder, &json!({ "query": query })).unwrap();
        assert_eq!(status, 200, "{query}: {answer}");
        all.push(answer.to_string());
    }
    for path in ["/api/v1/incidents", "/api/v1/anomalies?since=1970-01-01T00:00:00Z"] {
        let (status, answer) = server.get(path, &server.responder).unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        all.push(answer);
    }
    all
}

#[test]
fn a_backup_answers_the_same_questions_on_an_empty_machine() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [AT_ONCE[0], AT_ONCE[1], ("WARDROOM_CHECKPOINT__INTERVAL_SECONDS", "1")];
    let mut server = Server::start(&dir.path().join("first"), "", &environment).unwrap();
    let (data, to) = (dir.path().join("first/data"), dir.path().join("backups"));
    let arguments = ["backup", "--data", text(&data), "--to", text(&to), "--json"];
    (0..10).for_each(|minute| send(&server, minute));
    settle(&server);
    let dry = told(&[&arguments[..], &["--dry-run"]].concat());
    assert!(dry["files"].as_u64() > Some(10) && !to.exists(), "{dry}");
    // What one that was cut short left behind goes with the next.
    std::fs::create_dir_all(to.join(".2026-11-25T00-00-00.000Z/bus")).unwrap();
    let first = told(&arguments);
    let names = || std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names().all(|name| name == ".lock" || !name.starts_with('.')), "{:?}", names().collect::<Vec<_>>());
    assert_eq!(first["linked_bytes"], 0, "{first}");
    // Some of what follows is in the tables, some only on the bus; all of it while the copy is made.
    (10..20).for_each(|minute| send(&server, minute));
    settle(&server);
    let second = std::thread::scope(|scope| {
        let making = scope.spawn(|| told(&arguments));
        (20..25).for_each(|minute| send(&server, minute));
        making.join().unwrap()
    });
    assert!(second["linked_bytes"].as_u64() > Some(0), "what has not changed is linked: {second}");
    let metrics = server.get("/metrics", &server.responder).unwrap().1;
    assert!(metrics.contains("wardroom_backup_last_success_timestamp_seconds 1"), "{metrics}");
    server.kill();

    // The last one is made of a folder at rest: it has to answer just as the server did.
    server.restart().unwrap();
    settle(&server);
    let expected = answers(&server);
    assert!(expected[0].lines().count() == 500 && expected[1].contains("minute 24"), "{expected:?}");
    let third = told(&[&arguments[..], &["--keep", "2"]].concat());
    assert_eq!(third["removed"], json!([first["path"]]), "the oldest goes");
    server.kill();
    let restored = dir.path().join("second");
    std::fs::create_dir_all(&restored).unwrap();
    std::fs::rename(dir.path().join("first/secrets"), restored.join("secrets")).unwrap();
    let to_data = restored.join("data");
    let found = told(&["restore", "--from", text(&to), "--data", text(&to_data), "--verify", "--json"]);
    let verified = &found["verified"];
    assert!(
        verified["bus"]["end"].as_u64() > Some(70) && verified["tables"][0]["rows"].as_u64() > Some(400),
        "{found}"
    );
    // A machine that never saw the first folder.
    std::fs::rename(dir.path().join("first"), dir.path().join("gone")).unwrap();
    let other = server.on_copy(&restored).unwrap();
    settle(&other);
    assert_eq!(answers(&other), expected);
    send(&other, 30);
    settle(&other);
    drop(other);

    // One made in the middle of the load holds all of what was there before it began.
    let third_place = dir.path().join("third");
    let middle = PathBuf::from(second["path"].as_str().unwrap());
    told(&["restore", "--from", text(&middle), "--data", text(&third_place.join("data")), "--verify", "--json"]);
    std::fs::rename(restored.join("secrets"), third_place.join("secrets")).unwrap();
    let other = server.on_copy(&third_place).unwrap();
    settle(&other);
    let minutes = |text: &str| (0..25).filter(|minute| text.contains(&format!("minute {minute} failed"))).count();
    let found = answers(&other);
    assert!(minutes(&found[1]) >= 20 && found[0].lines().count() >= 400, "{found:?}");

    let words = refused(&["restore", "--from", text(&to), "--data", text(&to_data)]);
    assert!(words.contains("is not empty"), "{words}");
    let inside = to_data.join("backups");
    let wrong = ["backup", "--data", text(&to_data), "--to", text(&inside)];
    assert!(refused(&wrong).contains("inside the data folder"));
    // A bit that flipped is found, and the file is named.
    let segment = std::fs::read_dir(middle.join("bus")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let place = dir.path().join("fourth");
    let words = refused(&["restore", "--from", text(&middle), "--data", text(&place)]);
    assert!(words.contains(segment.file_name().unwrap().to_str().unwrap()) && words.contains("damaged"), "{words}");
}

/// The supervisor makes them when the configuration asks for them.
#[test]
fn backups_are_made_when_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backups");
    let server = Server::start(dir.path(), "", &[("WARDROOM_BACKUP__TO", text(&to))]).unwrap();
    let whole = || {
        let folders = std::fs::read_dir(&to).into_iter().flatten().map(|entry| entry.unwrap().path());
        folders.filter(|folder| folder.join("manifest.json").exists()).count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while whole() == 0 {
        let log = || std::fs::read_to_string(dir.path().join("wardroom.log")).unwrap_or_default();
        assert!(std::time::Instant::now() < deadline, "no backup was made: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    drop(server);
}
