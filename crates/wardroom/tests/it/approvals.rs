//! Approvals that the approver signs, the kill switch and break-glass, through the command line and the API.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::now_ms;
use wardroom_testing::server::{create_token, run};

use crate::incidents::{Scenario, with_slow_cart};

/// Creates keys for alice and bob, and lists them in the executor's file in place of alice's token.
fn list_keys(scenario: &Scenario) -> [String; 2] {
    let server = &scenario.server;
    let mut lines = String::new();
    let keys = ["alice", "bob"].map(|principal| {
        let file = server.dir.join(principal).display().to_string();
        let (code, line) = run(&["approver", "keygen", "--principal", principal, "--out", &file]).unwrap();
        assert_eq!(code, Some(0));
        lines += &format!("      {line}");
        file
    });
    let yaml = std::fs::read_to_string(&server.executor_config).unwrap();
    let (_, targets) = yaml.split_once("targets:").unwrap();
    let text = format!("approvers:\n  - tenant: main\n    allowed-signers: |\n{lines}targets:{targets}");
    std::fs::write(&server.executor_config, text).unwrap();
    keys
}

/// Runs a command against the server, as a principal.
fn command(scenario: &Scenario, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let server = &scenario.server;
    let url = server.url.clone();
    let mut all = arguments.to_vec();
    all.extend(["--url", &url, "--token", token]);
    server.run(&all).unwrap()
}

fn audit_actions(data: &Path) -> Vec<Value> {
    let (code, text) =
        run(&["audit", "list", "--json", "--limit", "1000", "--data", &data.display().to_string()]).unwrap();
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["entries"].as_array().unwrap().clone()
}

/// The blocks of docs/security.md.
#[test]
fn an_approver_signs_with_their_own_key() {
    let scenario = with_slow_cart(&[], "awaiting_approval");
    let started = Timestamp::from_millis(now_ms());
    let (server, data) = (&scenario.server, scenario.server.dir.join("data"));
    let [alice, bob] = list_keys(&scenario);
    let token = server.responder_token.clone();
    let plan = scenario.incident()["plan_sha256"].as_str().unwrap().to_owned();
    let approve = |arguments: &[&str]| {
        command(&scenario, &token, &[&["incidents", "approve", "INC-1", "--plan", &plan], arguments].concat()).0
    };
    // Everything that the server has: tokens of every role, and a proof of another plan.
    assert_eq!(approve(&[]), Some(4), "a token proves nothing");
    let admin = create_token(&data, "root", "admin").unwrap();
    let body = json!({ "plan_sha256": plan });
    // The new token is in force within a second.
    let answered = (0..40).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let (status, answer) = server.post_json("/api/v1/incidents/INC-1/approve", &admin, &body).unwrap();
        (status != 401).then_some((status, answer))
    });
    let (status, answer) = answered.unwrap();
    assert_eq!((status, &answer["code"]), (403, &json!("not_an_approver")), "{answer}");
    let forged =
        json!({ "plan_sha256": plan, "proof": { "time": Timestamp::from_millis(now_ms()), "signature": "x" } });
    let (status, answer) = server.post_json("/api/v1/incidents/INC-1/approve", &token, &forged).unwrap();
    assert_eq!((status, &answer["code"]), (403, &json!("invalid_proof")), "{answer}");
    // The kill switch.
    let (code, text) = command(&scenario, &token, &["stop-all", "--reason", "test", "--json"]);
    assert!(code == Some(0) && text.contains("\"stopped\":true"), "{text}");
    assert_eq!(approve(&["--key", &alice, "--reason", "cart is slow"]), Some(0));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(scenario.shop.effects_since(started).unwrap().len(), 0, "stopped");
    assert_eq!(command(&scenario, &token, &["resume"]).0, Some(4), "a token does not resume");
    assert_eq!(command(&scenario, &token, &["resume", "--key", &bob]).0, Some(0));
    let deadline = Instant::now() + Duration::from_secs(60);
    while scenario.incident()["state"] != "verifying" {
        assert!(Instant::now() < deadline, "{:#}", scenario.incident());
        std::thread::sleep(Duration::from_millis(100));
    }
    let incident = scenario.incident();
    assert_eq!((&incident["approved_by"], &incident["execution"]), (&json!("alice"), &json!("applied")));
    assert_eq!(scenario.shop.effects_since(started).unwrap().len(), 1);
    assert_eq!(approve(&["--key", &alice]), Some(6), "used once");
    // Stopped without the server; nothing to review.
    let stop = ["stop-all", "--data", &data.display().to_string()];
    assert_eq!(run(&stop).unwrap().0, Some(0));
    let (_, state) = server.get("/api/v1/stop-all", &token).unwrap();
    assert!(state.contains("\"stopped\":true"), "{state}");
    assert_eq!(command(&scenario, &token, &["incidents", "review", "INC-1", "--key", &bob]).0, Some(1));
    let actions = audit_actions(&data);
    let count = |action: &str| actions.iter().filter(|entry| entry["action"] == action).count();
    assert!(count("approve_refused") >= 3, "{actions:#?}");
    // What was requested without the server is in the log, too.
    assert!(count("stop_in_force") >= 1, "{actions:#?}");
    for action in ["stop_all", "resume_refused", "resume", "review_refused"] {
        assert_eq!(count(action), 1, "{action}: {actions:#?}");
    }
}

#[test]
fn documented_executor_settings_are_accepted() {
    use std::os::unix::fs::PermissionsExt;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = tempfile::tempdir().unwrap();
    let (file, own) = (dir.path().join("executor.yaml"), dir.path().join("wardroom.yaml"));
    std::fs::write(&own, "{}\n").unwrap();
    let own = own.display().to_string();
    let mut found = 0;
    for page in ["docs/security.md", "docs/audit.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for block in text.split("```yaml test=documented_executor_settings_are_accepted\n").skip(1) {
            let block = block.split("```").next().unwrap();
            std::fs::write(&file, block).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let (code, text) =
                run(&["config", "check", "--config", &own, "--executor-config", &file.display().to_string()]).unwrap();
            assert_eq!(code, Some(0), "{page}: {text}\n{block}");
            found += 1;
        }
    }
    assert_eq!(found, 4);
}
