//! Contract tests that every tool must pass, against the real supervisor of the demo shop.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use serde_json::{Value, json};
use wardroom_domain::{Outcome, Timestamp, ToolCall};
use wardroom_respond::{Tool, ToolError};
use wardroom_testing::Shop;
use wardroom_tools::{Target, tools};

struct ShopFixture {
    shop: Shop,
    tools: Vec<Box<dyn Tool>>,
    /// Last field, so that the shop stops before its folder is deleted.
    _dir: tempfile::TempDir,
}

/// Starts a healthy shop with one deployment at the start.
fn shop(extra_arguments: &[&str]) -> ShopFixture {
    let dir = tempfile::tempdir().unwrap();
    let shop =
        Shop::start(dir.path(), &[&["--deploy", "cart", "--deploy-at", "0s"], extra_arguments].concat()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let targets: Vec<Target> = serde_json::from_value(json!([
        { "tool": "process", "name": "cart", "url": shop.control, "token": "control" },
        { "tool": "process", "name": "payments", "url": shop.control, "token": "control", "operations": ["restart"] },
        { "tool": "process", "name": "queue", "url": "http://127.0.0.1:1", "token": "control" },
    ]))
    .unwrap();
    ShopFixture { shop, tools: tools(&targets), _dir: dir }
}

fn call(operation: &str, target: &str, arguments: Value) -> ToolCall {
    let arguments = arguments.as_object().cloned().unwrap();
    ToolCall { tool: "process".into(), operation: operation.into(), target: target.into(), arguments }
}

impl ShopFixture {
    fn effects(&self) -> usize {
        self.shop.effects_since(Timestamp::default()).unwrap().len()
    }
}

/// Plans, executes, repeats, undoes and repeats the undo of every operation.
#[test]
fn repeated_operations_take_effect_once_and_undo_restores() {
    let shop = shop(&[]);
    let tool = shop.tools[0].as_ref();
    let calls = [
        call("restart", "cart", json!({})),
        call("rollback", "cart", json!({})),
        call("settings", "cart", json!({ "key": "pool_size", "value": "7" })),
    ];
    let operations: Vec<&str> = tool.spec().operations.iter().map(|operation| operation.name).collect();
    assert_eq!(
        operations,
        calls.iter().map(|call| call.operation.as_str()).collect::<Vec<_>>(),
        "all operations are tested"
    );
    let mut expected = 0;
    for call in calls {
        let dry_run = tool.plan(&call).unwrap();
        assert_eq!(shop.effects(), expected, "a dry run has no effect");
        let key = format!("key-{}", call.operation);
        assert_eq!(tool.probe(&call, &dry_run.precondition, &key).unwrap(), Outcome::NotApplied);
        for _ in 0..2 {
            assert_eq!(tool.execute(&call, &dry_run.precondition, &key).unwrap().outcome, Outcome::Applied);
        }
        expected += 1;
        assert_eq!(shop.effects(), expected, "{}: executed twice, effective once", call.operation);
        assert_eq!(tool.probe(&call, &dry_run.precondition, &key).unwrap(), Outcome::Applied);
        let Some(undo) = dry_run.undo else {
            assert!(!dry_run.reversible);
            continue;
        };
        let state = tool.state(&undo).unwrap();
        for _ in 0..2 {
            assert_eq!(tool.execute(&undo, &state, "undo").unwrap().outcome, Outcome::Applied);
        }
        expected += 1;
        assert_eq!(shop.effects(), expected);
        assert_eq!(tool.plan(&call).unwrap().diff, dry_run.diff, "{}: undone", call.operation);
        let probed = tool.probe(&call, &dry_run.precondition, &key).unwrap();
        assert_eq!(probed, Outcome::Unknown, "unknown after another operation");
        assert_ne!(tool.state(&call).unwrap(), dry_run.precondition, "the plan is stale");
        let settle = self::call("restart", "cart", json!({}));
        tool.execute(&settle, &dry_run.precondition, "between").unwrap();
        expected += 1;
    }
}

#[test]
fn invalid_calls_are_refused_without_effect() {
    let shop = shop(&[]);
    let tool = shop.tools[0].as_ref();
    let invalid = |call: &ToolCall| matches!(tool.plan(call), Err(ToolError::Invalid(_)));
    assert!(invalid(&call("restart", "no_such_target", json!({}))), "undeclared target");
    assert!(invalid(&call("explode", "cart", json!({}))), "unknown operation");
    assert!(invalid(&call("rollback", "payments", json!({}))), "operation not allowed on the target");
    assert!(invalid(&call("restart", "cart", json!({ "force": true }))), "unknown argument");
    assert!(invalid(&call("settings", "cart", json!({ "key": "no_such", "value": 1 }))), "unknown setting");
    assert!(matches!(tool.plan(&call("restart", "queue", json!({}))), Err(ToolError::Unavailable(_))));
    let restart = call("restart", "cart", json!({}));
    assert!(matches!(tool.execute(&restart, "0.0.0", "k"), Err(ToolError::Stale(_))), "the target has changed");
    assert_eq!(shop.effects(), 0);
}

#[test]
fn rollback_needs_a_previous_version() {
    let shop = shop(&["--deploy-at", "3600s"]);
    let refused = shop.tools[0].plan(&call("rollback", "cart", json!({})));
    assert!(matches!(refused, Err(ToolError::Invalid(text)) if text.contains("previous version")));
}

#[test]
fn success_without_effect_is_reported_as_not_applied() {
    let shop = shop(&["--ignore-control"]);
    let restart = call("restart", "cart", json!({}));
    let dry_run = shop.tools[0].plan(&restart).unwrap();
    let applied = shop.tools[0].execute(&restart, &dry_run.precondition, "k").unwrap();
    assert_eq!(applied.outcome, Outcome::NotApplied);
}
