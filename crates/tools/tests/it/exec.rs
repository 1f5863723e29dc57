//! `exec` against real programs: a small control program of an operator, in shell.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::Outcome;
use wardroom_respond::{Run, ToolError};
use wardroom_tools::{Target, check_targets};

use super::contract::{self, Case, Cut, CutPrograms};
use super::{call, context, local_programs, tool_with};

/// Keeps a value and the key of the last change in files, and counts its effects. It stands for what operators have.
const PROGRAM: &str = r#"#!/bin/sh
set -eu
dir="$2"
case "$1" in
  state) cat "$dir/value" ;;
  diff) echo "value goes from $(cat "$dir/value") to $3" ;;
  set) printf %s "$3" > "$dir/value"; printf %s "$WARDROOM_IDEMPOTENCY_KEY" > "$dir/key"; echo "$3" >> "$dir/effects"
       echo "set with $SERVICE_TOKEN"; exit "${4:-0}" ;;
  pretend) echo done ;;
  probe) test "$(cat "$dir/key")" = "$WARDROOM_IDEMPOTENCY_KEY" || exit 1 ;;
  slow) sleep 30 ;;
  *) exit 9 ;;
esac
"#;

fn install(dir: &Path) -> String {
    let program = dir.join("servicectl");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (name, value) in [("value", "5"), ("key", ""), ("effects", "")] {
        std::fs::write(dir.join(name), value).unwrap();
    }
    program.display().to_string()
}

fn targets(dir: &Path) -> Value {
    let program = dir.join("servicectl").display().to_string();
    let folder = dir.display().to_string();
    let run = |words: &[&str]| {
        let words: Vec<&str> = [words[0], &folder].into_iter().chain(words[1..].iter().copied()).collect();
        json!({ "program": program, "arguments": words })
    };
    let command = |name: &str, words: &[&str]| {
        json!({ "name": name, "summary": "set the value", "risk": "medium", "run": run(words),
            "arguments": { "value": { "description": "the value", "type": "text", "pattern": "[-a-z0-9 ;$()']+" } },
            "state": run(&["state"]), "probe": run(&["probe"]), "dry-run": run(&["diff", "{value}"]) })
    };
    json!([{ "tool": "exec", "name": "service", "blast-radius": "the service and its callers", "folder": folder,
        "environment": { "SERVICE_TOKEN": "CANARY-token" }, "timeout-seconds": 2,
        "commands": [
            command("set", &["set", "{value}"]),
            command("set-badly", &["set", "{value}", "7"]),
            command("pretend", &["pretend", "{value}"]),
            command("hang", &["slow", "{value}"]),
            { "name": "show", "summary": "show the value", "read-only": true, "risk": "low", "run": run(&["state"]) },
        ] }])
}

#[test]
fn declared_commands_hold_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let targets = targets(dir.path());
    let cut = Arc::new(Cut::default());
    let tool = tool_with(&targets, &context(local_programs(&targets), dir.path()));
    let programs = CutPrograms { programs: local_programs(&targets), cut: Arc::clone(&cut) };
    let cut_off = tool_with(&targets, &context(programs, dir.path()));
    let effects = || std::fs::read_to_string(dir.path().join("effects")).unwrap().lines().count();
    let changes = std::cell::Cell::new(0);
    let other_change = || {
        changes.set(changes.get() + 1);
        std::fs::write(dir.path().join("value"), format!("other {}", changes.get())).unwrap();
    };
    for operation in ["set", "set-badly"] {
        let call = call("exec", operation, "service", json!({ "value": "50; $(id) 'x'" }));
        let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &effects, key: operation };
        contract::check(&case);
        // Each interruption starts from another value.
        std::fs::write(dir.path().join("value"), "5").unwrap();
        assert!(contract::interrupted_everywhere(&case, cut_off.as_ref(), &cut) > 3);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("value")).unwrap(), "50; $(id) 'x'", "one word, no shell");
}

#[test]
fn exit_codes_are_not_trusted_and_time_and_output_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let targets = targets(dir.path());
    let tool = tool_with(&targets, &context(local_programs(&targets), dir.path()));
    let run = |operation: &str, key: &str| {
        let call = call("exec", operation, "service", json!({ "value": key }));
        let dry_run = tool.plan(&call).unwrap();
        tool.execute(&call, &Run::new(&dry_run.precondition, key))
    };
    let applied = run("set", "a").unwrap();
    assert_eq!((applied.outcome, applied.output.as_str()), (Outcome::Applied, "set with [redacted]"));
    let failed = run("set-badly", "b").unwrap();
    assert_eq!(failed.outcome, Outcome::Applied, "the exit code says failure, the probe says that it is done");
    let pretended = run("pretend", "c").unwrap();
    assert_eq!(pretended.outcome, Outcome::NotApplied, "the exit code says success, the probe says that it is not");
    let began = std::time::Instant::now();
    assert!(matches!(run("hang", "d"), Err(ToolError::Unavailable(_))));
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "ended after the target's two seconds");
    let shown = tool.read(&call("exec", "show", "service", json!({})), std::time::Duration::ZERO).unwrap();
    assert_eq!((&shown["exit_code"], &shown["stdout"]), (&json!(0), &json!("b")));
}

#[test]
fn an_argument_is_neither_an_option_nor_another_word() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let targets = targets(dir.path());
    let tool = tool_with(&targets, &context(local_programs(&targets), dir.path()));
    let plan = |value: &str| tool.plan(&call("exec", "set", "service", json!({ "value": value })));
    assert!(matches!(plan("--force"), Err(ToolError::Invalid(text)) if text.contains("would be an option")));
    assert!(matches!(plan("a\nb"), Err(ToolError::Invalid(text)) if text.contains("pattern")));
    assert!(matches!(plan("A"), Err(ToolError::Invalid(text)) if text.contains("pattern")));
    let dry_run = plan("1 2").unwrap();
    assert!(dry_run.diff.ends_with("'1 2': value goes from 5 to 1 2"), "{}", dry_run.diff);
}

#[test]
fn commands_that_cannot_be_checked_are_refused_when_the_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Value), field: &str| {
        let mut targets = targets(dir.path());
        change(&mut targets[0]["commands"][0]);
        let targets: Vec<Target> = serde_json::from_value(targets).unwrap();
        let error = check_targets(&targets).unwrap_err();
        assert_eq!(error.field, format!("targets[0].{field}"), "{error}");
        assert!(!error.reason.contains("CANARY"), "{error}");
    };
    let without = |name: &'static str| move |command: &mut Value| drop(command.as_object_mut().unwrap().remove(name));
    refused(&without("state"), "commands[0].state");
    refused(&without("probe"), "commands[0].probe");
    refused(&|command| command["read-only"] = true.into(), "commands[0].state");
    refused(&|command| command["run"]["program"] = "servicectl".into(), "commands[0].run.program");
    refused(&|command| command["run"]["program"] = "/bin/../bin/sh".into(), "commands[0].run.program");
    refused(&|command| command["run"]["arguments"][2] = "{CANARY}".into(), "commands[0].run.arguments[2]");
    refused(&|command| command["state"]["arguments"][1] = "{key}".into(), "commands[0].state.arguments[1]");
    refused(&|command| command["probe"]["arguments"][1] = "{key}".into(), "commands[0].run.arguments");
    refused(&|command| command["undo"] = json!({ "command": "show" }), "commands[0].undo.command");
    refused(&|command| command["undo"] = json!({ "command": "set" }), "commands[0].undo.arguments");
    refused(&|command| command["arguments"]["value"]["pattern"] = "(".into(), "commands[0].arguments.value.pattern");
    refused(&|command| command["shell"] = "CANARY".into(), "commands[0]");
    refused(&|command| command["name"] = "pretend".into(), "commands[2].name");
}
