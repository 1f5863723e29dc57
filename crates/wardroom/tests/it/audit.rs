//! The audit log is signed: whatever is done to the database or the ledger, `wardroom audit verify` finds it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};
use wardroom_domain::audit::{GENESIS, chain_hash};
use wardroom_testing::Server;
use wardroom_testing::server::{create_token, program, run};

use crate::server;

/// Maximum time until an entry is signed, on a busy machine.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs `audit verify --json`; returns exit code and report.
fn verify(data: &Path, public_key: Option<&Path>) -> (Option<i32>, Value) {
    let data = data.display().to_string();
    let key = public_key.map(|path| path.display().to_string());
    let mut arguments = vec!["audit", "verify", "--json", "--data", &data];
    arguments.extend(key.iter().flat_map(|key| ["--public-key", key]));
    let (code, text) = run(&arguments).unwrap();
    (code, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Waits until all entries are signed, and returns the report.
fn wait_until_signed(data: &Path) -> Value {
    let deadline = Instant::now() + SIGNING_TIMEOUT;
    loop {
        let (code, report) = verify(data, None);
        if code == Some(0) && report["signed"] == true && report["unsigned_entries"] == 0 {
            return report;
        }
        assert!(Instant::now() < deadline, "{code:?} {report}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn database(data: &Path) -> PathBuf {
    data.join("state/wardroom.db")
}

/// Runs statements on the state database.
fn execute(data: &Path, statements: &'static [&'static str]) {
    with_database(data, async |connection| {
        for statement in statements {
            sqlx::query(*statement).execute(&mut *connection).await.unwrap();
        }
    });
}

fn with_database(data: &Path, work: impl AsyncFnOnce(&mut SqliteConnection)) {
    let url = format!("sqlite://{}", database(data).display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        work(&mut connection).await;
        connection.close().await.unwrap();
    });
}

/// Changes the text of the second entry and computes all hashes again: a log that is valid in itself.
fn rewrite(data: &Path) {
    with_database(data, async |connection| {
        let rows = sqlx::query("SELECT sequence, body FROM audit ORDER BY sequence").fetch_all(&mut *connection).await;
        let mut previous = GENESIS.to_owned();
        for row in rows.unwrap() {
            let (sequence, mut text): (i64, String) = (row.get(0), row.get(1));
            if sequence == 2 {
                text = text.replace("alice", "mallory");
                assert!(text.contains("mallory"), "{text}");
            }
            previous = chain_hash(&previous, sequence, &text);
            let update = sqlx::query("UPDATE audit SET body = ?, hash = ? WHERE sequence = ?");
            update.bind(text).bind(&previous).bind(sequence).execute(&mut *connection).await.unwrap();
        }
    });
}

/// Copies what the audit log consists of.
fn copy(data: &Path, to: &Path) {
    for folder in ["state", "executor"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Leaves only the first lines of the ledger.
fn cut_ledger(data: &Path, lines: usize) {
    let path = data.join("executor/ledger.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() > lines, "{text}");
    let kept: Vec<&str> = text.lines().take(lines).collect();
    std::fs::write(&path, kept.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// What is done to a data folder, what has to be found, and the first entry that is named.
type Attack = (&'static str, fn(&Path), &'static str, Value);

/// Attacks on a log with this number of entries, all of them signed.
fn attacks(entries: i64) -> [Attack; 9] {
    [
        (
            "the tail is cut",
            |data| execute(data, &["DELETE FROM audit WHERE sequence > (SELECT MAX(sequence) - 1 FROM audit)"]),
            "entries_missing",
            json!(entries),
        ),
        ("all is cut", |data| execute(data, &["DELETE FROM audit"]), "entries_missing", json!(1)),
        (
            "an entry is changed",
            |data| execute(data, &["UPDATE audit SET body = replace(body, 'alice', 'mallory') WHERE sequence = 2"]),
            "chain_broken",
            json!(2),
        ),
        ("the log is rewritten", rewrite, "rewritten", json!(1)),
        (
            "the database is deleted",
            |data| std::fs::remove_dir_all(data.join("state")).unwrap(),
            "unreadable",
            json!(1),
        ),
        (
            "the database is replaced",
            |data| {
                std::fs::remove_dir_all(data.join("state")).unwrap();
                let data = data.display().to_string();
                let new = ["token", "create", "--new-database", "--principal", "m", "--role", "admin", "--data", &data];
                assert_eq!(run(&new).unwrap().0, Some(0));
            },
            "entries_missing",
            Value::Null,
        ),
        ("the ledger is an older copy", |data| cut_ledger(data, 1), "ledger_damaged", Value::Null),
        ("the ledger is emptied", |data| cut_ledger(data, 0), "ledger_damaged", json!(1)),
        (
            "the ledger and what the database knows of it are removed",
            |data| {
                execute(data, &["DELETE FROM audit_head"]);
                std::fs::remove_dir_all(data.join("executor")).unwrap();
            },
            "not_signed",
            json!(1),
        ),
    ]
}

#[test]
fn every_change_of_the_log_is_found_and_a_restored_one_can_be_accepted() {
    let (dir, mut server) = server();
    let (data, pinned) = (dir.path().join("data"), dir.path().join("pinned.pem"));
    wait_until_signed(&data);
    std::fs::copy(data.join("executor/audit-public-key.pem"), &pinned).unwrap();
    for principal in ["vera", "victor"] {
        create_token(&data, principal, "viewer").unwrap();
        // A head of its own.
        wait_until_signed(&data);
    }
    let ready: Value = serde_json::from_str(&server.get("/readyz", "").unwrap().1).unwrap();
    assert_eq!(ready["audit"], "signed");
    assert_eq!(server.stop().unwrap(), Some(0));
    let (code, report) = verify(&data, Some(&pinned));
    assert_eq!((code, &report["ok"], &report["unsigned_entries"]), (Some(0), &json!(true), &json!(0)), "{report}");
    let entries = report["entries"].as_i64().unwrap();
    for (number, (what, attack, expected, first_broken)) in attacks(entries).into_iter().enumerate() {
        let altered = dir.path().join(format!("altered-{number}"));
        copy(&data, &altered);
        attack(&altered);
        let (code, report) = verify(&altered, Some(&pinned));
        let codes: Vec<&Value> = report["faults"].as_array().unwrap().iter().map(|fault| &fault["code"]).collect();
        assert!(code == Some(1) && codes.contains(&&json!(expected)), "{what}: {report}");
        assert!(first_broken.is_null() || report["first_broken"] == first_broken, "{what}: {report}");
        if expected != "not_signed" {
            assert_eq!(verify(&altered, None).0, Some(1), "{what}, without a copy of the key");
        }
    }
    check_older_copy(&mut server, &data, entries);
    assert_eq!(verify(&data, Some(&pinned)).0, Some(0), "the key is the same");
}

/// A server on an older copy of the database goes on, and does not have the loss signed until that is accepted.
fn check_older_copy(server: &mut Server, data: &Path, entries: i64) {
    execute(data, &["DELETE FROM audit WHERE sequence > (SELECT MAX(sequence) - 1 FROM audit)"]);
    server.restart().unwrap();
    let deadline = Instant::now() + SIGNING_TIMEOUT;
    let not_signed = || {
        let ready: Value = serde_json::from_str(&server.get("/readyz", "").unwrap().1).unwrap();
        let reason = ready["audit"].as_str().unwrap();
        let is_reported = reason.contains("run `wardroom audit verify`");
        assert!(!is_reported || (!reason.contains("0 entries") && ready["status"] == "degraded"), "{ready}");
        is_reported
    };
    while !not_signed() {
        assert!(Instant::now() < deadline, "{:?}", server.get("/readyz", ""));
        std::thread::sleep(Duration::from_millis(100));
    }
    create_token(data, "mallory", "viewer").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let (code, report) = verify(data, None);
    assert_eq!((code, &report["faults"][0]["code"]), (Some(1), &json!("rewritten")), "{report}");
    assert_eq!(server.stop().unwrap(), Some(0));

    let data_text = data.display().to_string();
    let accept = ["audit", "accept-restore", "--data", &data_text, "--reason", "the database is of yesterday"];
    let (code, text) = run(&accept).unwrap();
    assert!(code == Some(0) && text.contains("accepted as found"), "{text}");
    let (code, text) = run(&accept).unwrap();
    assert!(code == Some(0) && text.contains("nothing to accept"), "{text}");
    server.restart().unwrap();
    let report = wait_until_signed(data);
    let accepted = &report["accepted"][0];
    assert_eq!((&accepted["reason"], &accepted["signed_before"]), (&json!(accept[5]), &json!(entries)), "{report}");
}

/// Runs the verifier that shares no code with Wardroom.
fn verify_separately(arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify_audit.py");
    let mut python = std::process::Command::new(program("CLIENT_PYTHON"));
    python.arg(script).args(arguments).env("PYTHONHOME", program("CLIENT_PYTHON_HOME"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES"));
    let output = python.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The blocks of docs/audit.md.
#[test]
fn an_export_is_verified_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let published = dir.path().join("elsewhere/heads.jsonl");
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let settings = format!("  []\naudit-heads:\n  - file: {}\n", published.display());
    let mut server = Server::start(dir.path(), &settings, &[]).unwrap();
    let data = dir.path().join("data");
    for number in 0..130 {
        let body = json!({ "reason": format!("test {number}") });
        assert_eq!(server.post_json("/api/v1/stop-all", &server.responder_token, &body).unwrap().0, 200);
    }
    wait_until_signed(&data);
    let deadline = Instant::now() + SIGNING_TIMEOUT;
    while std::fs::read_to_string(&published).unwrap_or_default().lines().count() < 2 {
        assert!(Instant::now() < deadline, "no head after 100 entries");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.stop().unwrap(), Some(0));
    let [export, heads, folder] =
        [dir.path().join("audit.jsonl"), published, data.clone()].map(|p| p.display().to_string());
    let (code, text) = run(&["audit", "export", "--data", &folder, "--out", &export]).unwrap();
    assert!(code == Some(0) && text.contains("entries written"), "{text}");
    let key = data.join("executor/audit-public-key.pem").display().to_string();
    let check = |source: &[&str]| {
        let arguments = [source, &["--public-key", &key, "--heads", &heads]].concat();
        let (code, text) = run(&[&["audit", "verify", "--json"], &arguments[..]].concat()).unwrap();
        let own: Value = serde_json::from_str(&text).unwrap();
        let separate = verify_separately(&arguments);
        for field in ["ok", "first_broken", "entries"] {
            assert_eq!(own[field], separate[field], "{own} {separate}");
        }
        (code, own)
    };
    assert_eq!(check(&["--data", &folder]).0, Some(0));
    let (code, report) = check(&["--file", &export]);
    assert!(code == Some(0) && report["entries"].as_i64().unwrap() > 130, "{report}");
    // Log and ledger are put back together.
    execute(&data, &["DELETE FROM audit WHERE sequence > 20", "DELETE FROM audit_head"]);
    let ledger = data.join("executor/ledger.jsonl");
    let text = std::fs::read_to_string(&ledger).unwrap();
    let is_kept = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["signed"]["head"]["position"]["sequence"].as_i64().is_none_or(|sequence| sequence <= 20)
    };
    let kept: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    std::fs::write(&ledger, kept).unwrap();
    let (code, report) = check(&["--data", &folder]);
    let codes: Vec<&Value> = report["faults"].as_array().unwrap().iter().map(|fault| &fault["code"]).collect();
    assert!(code == Some(1) && codes.contains(&&json!("entries_missing")), "{report}");
    let (code, text) = run(&["audit", "show", "--data", &folder, "2"]).unwrap();
    assert!(code == Some(0) && text.contains("\"sequence\":2") || text.contains("\"sequence\": 2"), "{text}");
}

/// An object store with versions that checks every signature, and the rights of every key.
struct ObjectStore {
    url: String,
    program: std::process::Child,
}

impl ObjectStore {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let mut moto = client_python();
        moto.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let (out, errors) = (std::process::Stdio::null(), std::process::Stdio::null());
        let store = Self { program: moto.stdout(out).stderr(errors).spawn().unwrap(), url };
        let deadline = Instant::now() + Duration::from_secs(60);
        while ureq::get(format!("{}/moto-api/", store.url)).call().is_err() {
            assert!(Instant::now() < deadline, "moto does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        store
    }

    /// Runs a command of the script; returns its lines.
    fn run(&self, command: &str) -> Vec<Value> {
        let mut python = client_python();
        let output = python.args(["-c", include_str!("s3_heads.py"), &self.url, command]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

fn client_python() -> std::process::Command {
    let mut python = std::process::Command::new(program("CLIENT_PYTHON"));
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME")).env("PYTHONPATH", program("CLIENT_PYTHON_SITE"));
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES"));
    python
}

#[test]
fn an_object_store_keeps_signed_heads_with_versions() {
    let (dir, store) = (tempfile::tempdir().unwrap(), ObjectStore::start());
    let key = &store.run("setup")[0];
    let place = |bucket: &str, secret: &str| {
        format!(
            "  - url: {}/{bucket}/production\n    s3:\n      region: us-east-1\n      access-key-id: {}\n      \
             secret-access-key: {secret}\n",
            store.url,
            key["id"].as_str().unwrap()
        )
    };
    let secret = key["secret"].as_str().unwrap();
    // The executor reads credentials in the folder of its file only.
    let file = dir.path().join("secrets/heads");
    std::fs::create_dir(dir.path().join("secrets")).unwrap();
    std::fs::write(&file, secret).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let by_reference = format!("file:{}", file.display());
    let settings = format!("  []\naudit-heads:\n{}{}", place("heads", &by_reference), place("heads/other", "wrong"));
    let mut server = Server::start(dir.path(), &settings, &[]).unwrap();
    let (deadline, data) = (Instant::now() + SIGNING_TIMEOUT, dir.path().join("data"));
    let refused = loop {
        let ready: Value = serde_json::from_str(&server.get("/readyz", "").unwrap().1).unwrap();
        match ready["audit_heads"].as_str() {
            Some(reason) if reason.contains("status") => break reason.to_owned(),
            _ => assert!(Instant::now() < deadline, "{ready}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(refused.ends_with("status 403 (SignatureDoesNotMatch)"), "{refused}");
    assert!(refused.contains("heads/other/production") && !refused.contains(secret), "{refused}");
    assert_eq!(server.stop().unwrap(), Some(0));
    let kept = store.run("read");
    assert!(!kept.is_empty());
    let lines: String = kept.iter().map(|object| format!("{}\n", object["head"])).collect();
    for object in &kept {
        assert!(object["key"].as_str().unwrap().starts_with("production/0000"), "{object}");
        assert_ne!(object["version"], "null", "{object}");
    }
    let heads = dir.path().join("heads.jsonl");
    std::fs::write(&heads, lines).unwrap();
    let [data, heads] = [data, heads].map(|path| path.display().to_string());
    let (code, text) = run(&["audit", "verify", "--data", &data, "--heads", &heads]).unwrap();
    assert_eq!(code, Some(0), "{text}");
    // What was published is missing, once the log is cut.
    execute(Path::new(&data), &["DELETE FROM audit WHERE sequence > 1"]);
    let (code, text) = run(&["audit", "verify", "--data", &data, "--heads", &heads]).unwrap();
    assert_eq!(code, Some(1), "{text}");
}
