//! Tools through the shipped program: the confined executor starts programs by its tool runner only, has the
//! credentials that references name, and the server has neither.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use wardroom_testing::Server;
use wardroom_testing::server::run;

/// Keeps a value in a file; prints its environment's token, which must never come back.
const PROGRAM: &str = r#"#!/bin/sh
case "$1" in
  state) cat value; echo "$TOKEN" >&2 ;;
  diff) echo "value goes from $(cat value) to $2, with $TOKEN and $OTHER" ;;
  set) printf %s "$2" > value; printf %s "$WARDROOM_IDEMPOTENCY_KEY" > key ;;
  probe) test "$(cat key)" = "$WARDROOM_IDEMPOTENCY_KEY" ;;
esac
"#;

fn targets(dir: &Path) -> String {
    let folder = dir.join("service");
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("servicectl");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("value"), "5").unwrap();
    std::fs::write(folder.join("key"), "").unwrap();
    let secret = dir.join("secrets/other");
    std::fs::create_dir_all(dir.join("secrets")).unwrap();
    std::fs::write(&secret, "CANARY-other\n").unwrap();
    let part = |word: &str| json!({ "program": program, "arguments": [word, "{value}"] });
    let target = json!({ "tool": "exec", "name": "service", "blast-radius": "the service", "folder": folder,
        "environment": { "TOKEN": "env:WARDROOM_SECRET_SERVICE", "OTHER": format!("file:{}", secret.display()) },
        "commands": [{ "name": "set", "summary": "set the value", "risk": "low", "run": part("set"),
            "arguments": { "value": { "description": "the value", "type": "integer", "minimum": 0, "maximum": 9 } },
            "state": { "program": program, "arguments": ["state"] }, "probe": { "program": program, "arguments": ["probe"] },
            "dry-run": part("diff") }] });
    format!("  - {target}\n")
}

fn send(dir: &Path, request: &Value) -> Value {
    let mut stream = UnixStream::connect(dir.join("data/executor.sock")).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn the_confined_executor_runs_declared_programs_with_credentials_by_reference() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [("WARDROOM_SECRET_SERVICE", "CANARY-service")];
    let server = Server::start(dir.path(), &targets(dir.path()), &environment).unwrap();
    let call = json!({ "tool": "exec", "operation": "set", "target": "service", "arguments": { "value": 7 } });
    let dry_run = send(dir.path(), &json!({ "op": "dry_run", "call": call }))["dry_run"].clone();
    let diff = dry_run["diff"].as_str().unwrap_or_else(|| panic!("{dry_run}"));
    assert!(diff.ends_with("set 7: value goes from 5 to 7, with [redacted] and [redacted]"), "{diff}");
    // The server's process has neither the variable nor the file.
    for (role, pid) in server.processes() {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has_secret = String::from_utf8_lossy(&environment).contains("CANARY-service");
        assert!(!has_secret || role == "executor" || role == "supervisor", "{role} has the credential");
    }
    let plan = json!({ "version": 1, "tenant": "main", "incident": "k", "call": call, "dry_run": dry_run, "runbook": "r",
        "control": "none", "expires_at": wardroom_domain::Timestamp::from_millis(wardroom_testing::now_ms() + 60_000) });
    let plan: wardroom_domain::Plan = serde_json::from_value(plan).unwrap();
    let hash = plan.sha256().unwrap();
    let authorize = json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": server.responder_token });
    let authorized = send(dir.path(), &authorize);
    assert_eq!(authorized["code"], Value::Null, "{authorized}");
    let executed = send(dir.path(), &json!({ "op": "execute", "plan_sha256": hash }));
    assert_eq!(executed["status"]["executed"], "applied", "{executed}");
    assert_eq!(std::fs::read_to_string(dir.path().join("service/value")).unwrap(), "7");
    let ledger = std::fs::read_dir(dir.path().join("data/executor")).unwrap().map(|entry| entry.unwrap().path());
    for file in ledger.filter(|path| path.is_file()).chain([dir.path().join("wardroom.log")]) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains("CANARY"), "{}", file.display());
    }
}

#[test]
fn tools_are_listed_described_and_tried_out_on_the_command_line() {
    let (code, list) = run(&["tools", "list", "--json"]).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((code, list[0]["name"].as_str()), (Some(0), Some("process")));
    let (code, description) = run(&["tools", "describe", "terraform"]).unwrap();
    let description: Value = serde_json::from_str(&description).unwrap();
    assert_eq!((code, description["operations"][1]["risk"].as_str()), (Some(0), Some("high")));
    assert_ne!(run(&["tools", "describe", "no_such_tool"]).unwrap().0, Some(0));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("secrets/executor.yaml");
    let text =
        format!("approvers: []\ntargets:\n{}", targets(dir.path())).replace("env:WARDROOM_SECRET_SERVICE", "CANARY-x");
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = config.display().to_string();
    let dry_run = |arguments: &str| {
        run(&["tools", "dry-run", "--executor-config", &config, "exec", "set", "service", "--arguments", arguments])
            .unwrap()
    };
    let (code, shown) = dry_run(r#"{"value":7}"#);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, shown["risk"].as_str()), (Some(0), Some("low")));
    assert!(!shown.to_string().contains("CANARY"));
    assert_ne!(dry_run(r#"{"value":77}"#).0, Some(0), "outside the bounds");
    assert_eq!(std::fs::read_to_string(dir.path().join("service/value")).unwrap(), "5", "nothing was done");
    let (code, list) = run(&["tools", "list", "--executor-config", &config]).unwrap();
    assert!(code == Some(0) && list.contains("service of tenant main"), "{list}");
}

/// The examples of targets and of credentials in the pages of tools.
#[test]
fn documented_targets_are_accepted() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tools");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("executor.yaml");
    let mut examples = 0;
    for page in std::fs::read_dir(pages).unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml test=documented_targets_are_accepted\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let is_target = block.starts_with("- tool:");
            let indented = || block.lines().map(|line| format!("  {line}\n")).collect::<String>();
            let section = if is_target { format!("targets:\n{}", indented()) } else { block.to_owned() };
            std::fs::write(&config, format!("approvers: []\n{section}")).unwrap();
            std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
            let listed = run(&["tools", "list", "--json", "--executor-config", &config.display().to_string()]).unwrap();
            assert_eq!(listed.0, Some(0), "{}: {block}", page.display());
            examples += 1;
        }
    }
    assert!(examples >= 8, "{examples}");
}
