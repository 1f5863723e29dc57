//! `process` against the real supervisor of the demo shop.

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, Timestamp, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_testing::Shop;

use super::contract::{self, Case, Cut};
use super::{call, cut_proxy, tool};

struct ShopFixture {
    shop: Shop,
    /// Last field, so that the shop stops before its folder is deleted.
    _dir: tempfile::TempDir,
}

/// Starts a healthy shop with one deployment at the start.
fn shop(extra_arguments: &[&str]) -> ShopFixture {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [&["--deploy", "cart", "--deploy-at", "0s"], extra_arguments].concat();
    let shop = Shop::start(dir.path(), &arguments).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    ShopFixture { shop, _dir: dir }
}

impl ShopFixture {
    fn tool(&self, url: &str) -> Box<dyn Tool> {
        tool(&json!([
            { "tool": "process", "name": "cart", "url": url, "token": "control" },
            { "tool": "process", "name": "payments", "url": url, "token": "control", "operations": ["restart"] },
            { "tool": "process", "name": "queue", "url": "http://127.0.0.1:1", "token": "control" },
        ]))
    }

    fn effects(&self) -> usize {
        self.shop.effects_since(Timestamp::default()).unwrap().len()
    }
}

fn process(operation: &str, target: &str, arguments: Value) -> ToolCall {
    call("process", operation, target, arguments)
}

#[test]
fn every_operation_holds_the_contract() {
    let fixture = shop(&[]);
    let cut = Arc::new(Cut::default());
    let address = fixture.shop.control.strip_prefix("http://").unwrap();
    let cut_off = fixture.tool(&format!("http://{}", cut_proxy::tcp(address, &cut)));
    let tool = fixture.tool(&fixture.shop.control);
    let restart = process("restart", "cart", json!({}));
    let changes = std::cell::Cell::new(0);
    let other_change = || {
        changes.set(changes.get() + 1);
        let state = tool.state(&restart).unwrap();
        tool.execute(&restart, &Run::new(&state, &format!("other-{}", changes.get()))).unwrap();
    };
    let effects = || fixture.effects();
    for (operation, arguments) in
        [("restart", json!({})), ("rollback", json!({})), ("settings", json!({ "key": "pool_size", "value": "7" }))]
    {
        let call = process(operation, "cart", arguments);
        let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &effects, key: operation };
        contract::check(&case);
        if operation == "settings" {
            assert!(contract::interrupted_everywhere(&case, cut_off.as_ref(), &cut) > 3);
        }
    }
}

#[test]
fn invalid_calls_are_refused_without_effect() {
    let fixture = shop(&[]);
    let tool = fixture.tool(&fixture.shop.control);
    let invalid = |call: &ToolCall| matches!(tool.plan(call), Err(ToolError::Invalid(_)));
    assert!(invalid(&process("rollback", "payments", json!({}))), "operation not allowed on the target");
    assert!(invalid(&process("settings", "cart", json!({ "key": "no_such", "value": 1 }))), "unknown setting");
    let unavailable = tool.plan(&process("restart", "queue", json!({})));
    assert!(matches!(unavailable, Err(ToolError::Unavailable(_))));
    assert_eq!(fixture.effects(), 0);
}

#[test]
fn rollback_needs_a_previous_version() {
    let fixture = shop(&["--deploy-at", "3600s"]);
    let refused = fixture.tool(&fixture.shop.control).plan(&process("rollback", "cart", json!({})));
    assert!(matches!(refused, Err(ToolError::Invalid(text)) if text.contains("previous version")));
}

#[test]
fn success_without_effect_is_reported_as_not_applied() {
    let fixture = shop(&["--ignore-control"]);
    let (tool, restart) = (fixture.tool(&fixture.shop.control), process("restart", "cart", json!({})));
    let dry_run = tool.plan(&restart).unwrap();
    let applied = tool.execute(&restart, &Run::new(&dry_run.precondition, "k")).unwrap();
    assert_eq!(applied.outcome, Outcome::NotApplied);
}
