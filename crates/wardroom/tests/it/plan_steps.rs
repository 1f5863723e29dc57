//! Runbooks with checks and plans of several steps, on a running server: a supervised process and declared commands.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{Server, now_ms, server::run};

use crate::incidents::{Scenario, with_slow_cart_and};

/// What an operator would have: it shows and sets the state of a queue, and knows what it has done.
const PROGRAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$1" in
idle) cat idle ;;
state) cat state ;;
set) grep -qx "$WARDROOM_IDEMPOTENCY_KEY" done || { echo "$2" > state; echo "$WARDROOM_IDEMPOTENCY_KEY" >> done; } ;;
break) exit 3 ;;
done) grep -qx "$WARDROOM_IDEMPOTENCY_KEY" done ;;
esac
"#;

/// For a slow service: many idle connections want a restart; otherwise a smaller pool, and then the queue is paused by
/// a command that fails.
const RUNBOOK: &str = r#"---
id: slow-dependency
title: A dependency responds slowly
causes: [slow-dependency]
when: without-deployment
symptoms: ["Slow responses"]
checks: ["Is it slow for all callers?"]
reads:
  - id: idle
    question: "How many connections are idle?"
    tool: exec
    operation: idle
    target: queue
actions:
  - when:
      - { read: idle, value: /stdout, above: 50 }
    tool: process
    operation: restart
    target: "{{service}}"
  - tool: process
    operation: settings
    target: "{{service}}"
    arguments: { key: pool_size, value: 7 }
    then:
      - { tool: exec, operation: pause, target: queue }
---
Text.
"#;

/// Writes the program, its files and the runbook; returns the executor's target.
fn prepare(folder: &Path, idle: u32) -> String {
    let program = folder.join("queuectl");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in [("idle", idle.to_string()), ("state", "running".into()), ("done", String::new())] {
        std::fs::write(folder.join(name), format!("{text}\n")).unwrap();
    }
    let runbooks = folder.join("runbooks");
    std::fs::create_dir(&runbooks).unwrap();
    std::fs::write(runbooks.join("slow.md"), RUNBOOK).unwrap();
    let call = |words: &[&str]| json!({ "program": program, "arguments": words });
    let changing = |name: &str, run: Value| {
        json!({ "name": name, "summary": name, "risk": "low", "run": run, "state": call(&["state"]),
            "probe": call(&["done"]) })
    };
    let target = json!({
        "tool": "exec", "name": "queue", "blast-radius": "the queue", "folder": folder,
        "commands": [
            { "name": "idle", "summary": "idle connections", "read-only": true, "run": call(&["idle"]) },
            changing("pause", call(&["break"])),
            changing("resume", call(&["set", "running"])),
        ],
    });
    format!("  - {target}\n")
}

fn scenario(folder: &Path, idle: u32) -> Scenario {
    let target = prepare(folder, idle);
    let runbooks = folder.join("runbooks").display().to_string();
    with_slow_cart_and(&target, &[("WARDROOM_KNOWLEDGE__RUNBOOKS", &runbooks)], "awaiting_approval")
}

fn approve(scenario: &Scenario) {
    let server = &scenario.server;
    let body = json!({ "plan_sha256": scenario.incident()["plan_sha256"], "reason": "telemetry" });
    let (status, answer) = server.post_json("/api/v1/incidents/INC-1/approve", &server.responder_token, &body).unwrap();
    assert_eq!(status, 202, "{answer}");
}

fn wait_for(scenario: &Scenario, state: &str) -> Value {
    let started = Instant::now();
    loop {
        let incident = scenario.incident();
        if incident["state"] == state {
            return incident;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{state} not reached: {incident:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn evidence(incident: &Value) -> String {
    let items = incident["evidence"].as_array().unwrap();
    let found = items.iter().find(|item| item["id"] == "check:idle").unwrap();
    found["summary"].as_str().unwrap().to_owned()
}

/// The second step fails at its target: the first one is taken back, and the incident is escalated.
#[test]
fn a_step_that_fails_takes_back_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let started = Timestamp::from_millis(now_ms());
    let scenario = scenario(folder.path(), 3);
    let proposed = scenario.incident();
    assert!(evidence(&proposed).contains("How many connections are idle?"), "{}", evidence(&proposed));
    let steps = &proposed["plan"]["steps"];
    let operations: Vec<&Value> = steps.as_array().unwrap().iter().map(|step| &step["operation"]).collect();
    assert_eq!(operations, ["settings", "pause"]);
    assert_eq!((&steps[0]["reversible"], &proposed["plan"]["reversible"]), (&json!(true), &json!(false)));
    let server = &scenario.server;
    let (_, page) = server.get("/incidents/INC-1", &server.responder_token).unwrap();
    assert!(page.contains("exec pause of queue") && page.contains("pool_size goes from 20 to 7"), "{page}");
    let show = ["incidents", "show", "INC-1", "--url", &server.url, "--token", &server.responder_token];
    let (_, text) = server.run(&show).unwrap();
    assert!(text.contains("pool_size goes from 20 to 7") && text.contains("pause"), "{text}");
    approve(&scenario);
    let ended = wait_for(&scenario, "escalated");
    assert_eq!((&ended["execution"], &ended["undo"]), (&json!("not_applied"), &json!("applied")), "{ended:#}");
    let outcomes: Vec<(&Value, &Value)> =
        ended["plan"]["steps"].as_array().unwrap().iter().map(|step| (&step["outcome"], &step["undo"])).collect();
    assert_eq!(outcomes, [(&json!("applied"), &json!("applied")), (&json!("not_applied"), &Value::Null)]);
    let effects = scenario.shop.effects_since(started).unwrap();
    assert_eq!((effects.len(), effects[1].strip_prefix(&effects[0])), (2, Some("-undo")), "{effects:?}");
    let timeline = ended["timeline"].to_string();
    assert!(timeline.contains("checked exec idle of queue"), "{timeline}");
    let (_, text) = run(&["audit", "list", "--json", "--limit", "1000", "--data", &data(&scenario)]).unwrap();
    for action in ["checks_requested", "plan_prepared", "step_ended"] {
        assert!(text.contains(&format!("\"{action}\"")), "{action}: {text}");
    }
    assert_eq!(run(&["audit", "verify", "--data", &data(&scenario)]).unwrap().0, Some(0));
}

/// The same runbook, with another result of its check.
#[test]
fn a_check_chooses_the_action() {
    let folder = tempfile::tempdir().unwrap();
    let started = Timestamp::from_millis(now_ms());
    let scenario = scenario(folder.path(), 70);
    let proposed = scenario.incident();
    assert_eq!((&proposed["plan"]["operation"], &proposed["plan"]["steps"]), (&json!("restart"), &Value::Null));
    assert!(evidence(&proposed).contains("70"), "{}", evidence(&proposed));
    approve(&scenario);
    wait_for(&scenario, "verifying");
    assert_eq!(scenario.shop.effects_since(started).unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(folder.path().join("state")).unwrap(), "running\n");
}

/// The block of docs/runbooks.md. A mistake in a runbook stops the start, and is named.
#[test]
fn documented_runbooks_are_accepted() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbooks.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, block) = text.split_once("```yaml test=documented_runbooks_are_accepted\n").unwrap();
    let (front_matter, _) = block.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let runbooks = dir.path().join("runbooks");
    std::fs::create_dir(&runbooks).unwrap();
    std::fs::write(runbooks.join("a.md"), format!("---\n{front_matter}---\nText.\n")).unwrap();
    let folder = runbooks.display().to_string();
    let server = Server::start(dir.path(), "", &[("WARDROOM_KNOWLEDGE__RUNBOOKS", &folder)]).unwrap();
    assert_eq!(server.get("/healthz", "").unwrap().0, 200);
}

fn data(scenario: &Scenario) -> String {
    scenario.server.dir.join("data").display().to_string()
}
