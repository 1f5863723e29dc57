//! `http` against a real API with idempotency keys and versions: the control API of the demo shop's supervisor.

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, Timestamp};
use wardroom_respond::{Run, ToolError};
use wardroom_testing::Shop;
use wardroom_tools::{Target, check_targets};

use super::contract::{self, Case, Cut};
use super::little_server::LittleServer;
use super::{call, cut_proxy, tool};

fn targets(url: &str) -> Value {
    let show = json!({ "method": "GET", "path": "/services/{service}" });
    let service = json!({ "description": "name of the service", "type": "text", "pattern": "[a-z_-]+" });
    let probe = json!({ "request": show, "applied": [{ "pointer": "/last_key", "equals": "{key}" }] });
    let pointers = |part: &str| json!({ "request": show, "pointers": ["/version", part, "/last_key"], "shown": ["/version", part] });
    json!([{ "tool": "http", "name": "supervisor", "url": url, "blast-radius": "the service and its callers",
        "headers": { "Authorization": "Bearer control" },
        "calls": [
            { "name": "set", "summary": "change a setting", "risk": "medium", "if-match": "/version",
              "arguments": {
                "service": service,
                "setting": { "description": "name of the setting", "type": "text", "pattern": "[a-z_]+" },
                "value": { "description": "new value", "type": "integer", "minimum": 1, "maximum": 1000 } },
              "request": { "method": "POST", "path": "/services/{service}/settings",
                "body": { "key": "{setting}", "value": "{value}" } },
              "state": pointers("/settings/{setting}"), "probe": probe,
              "undo": { "call": "set", "arguments": { "service": "{service}", "setting": "{setting}",
                "value": "state:/settings/{setting}" } } },
            { "name": "rollback", "summary": "previous version", "risk": "medium", "if-match": "/version",
              "arguments": { "service": service }, "request": { "method": "POST", "path": "/services/{service}/rollback" },
              "state": pointers("/previous_version"), "probe": probe,
              "undo": { "call": "rollback", "arguments": { "service": "{service}" } } },
            { "name": "show", "summary": "show a service", "read-only": true, "risk": "low",
              "arguments": { "service": service }, "request": show },
        ] }])
}

#[test]
fn declared_calls_hold_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::start(dir.path(), &["--deploy", "cart", "--deploy-at", "0s"]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let cut = Arc::new(Cut::default());
    let tool_of = |url: &str| tool(&targets(url));
    let tool = tool_of(&shop.control);
    let cut_off = tool_of(&format!("http://{}", cut_proxy::tcp(shop.control.strip_prefix("http://").unwrap(), &cut)));
    let effects = || shop.effects_since(Timestamp::default()).unwrap().len();
    let changes = std::cell::Cell::new(0);
    let other = call("http", "set", "supervisor", json!({ "service": "cart", "setting": "pool_size", "value": 9 }));
    let other_change = || {
        changes.set(changes.get() + 1);
        let state = tool.state(&other).unwrap();
        tool.execute(&other, &Run::new(&state, &format!("other-{}", changes.get()))).unwrap();
    };
    let set = json!({ "service": "cart", "setting": "pool_size", "value": 7 });
    for (operation, arguments) in [("rollback", json!({ "service": "cart" })), ("set", set)] {
        let call = call("http", operation, "supervisor", arguments);
        let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &effects, key: operation };
        contract::check(&case);
        if operation == "set" {
            assert!(contract::interrupted_everywhere(&case, cut_off.as_ref(), &cut) > 3);
        }
    }
    let shown = tool.read(&call("http", "show", "supervisor", json!({ "service": "cart" })), std::time::Duration::ZERO);
    assert_eq!(shown.unwrap()["status"], 200);
}

#[test]
fn a_success_response_is_not_trusted_and_a_redirect_is_no_success() {
    let server = LittleServer::start(|request| match request.method.as_str() {
        "GET" => (200, String::new(), json!({ "version": 3, "last_key": "none" }).to_string()),
        _ if request.target.contains("moved") => (307, "Location: /elsewhere\r\n".into(), String::new()),
        _ => (204, String::new(), String::new()),
    });
    let tool = tool(&targets(&server.url()));
    for (service, expected) in [("cart", "did not take effect"), ("moved", "not followed")] {
        let call = call("http", "rollback", "supervisor", json!({ "service": service }));
        let dry_run = tool.plan(&call).unwrap();
        let applied = tool.execute(&call, &Run::new(&dry_run.precondition, "key")).unwrap();
        assert_eq!(applied.outcome, Outcome::NotApplied);
        assert!(applied.detail.contains(expected), "{}", applied.detail);
    }
    let received = server.received.lock().unwrap();
    let sent = received.iter().find(|request| request.method == "POST").unwrap();
    assert_eq!((sent.header("idempotency-key"), sent.header("if-match")), (Some("key"), Some("3")));
    assert_eq!(sent.header("authorization"), Some("Bearer control"));
}

#[test]
fn calls_that_cannot_be_checked_are_refused_when_the_file_is_read() {
    let refused = |change: &dyn Fn(&mut Value), field: &str| {
        let mut targets = targets("http://api.example");
        change(&mut targets[0]["calls"][0]);
        let targets: Vec<Target> = serde_json::from_value(targets).unwrap();
        let error = check_targets(&targets).unwrap_err();
        assert_eq!(error.field, format!("targets[0].{field}"), "{error}");
        assert!(!error.reason.contains("CANARY"), "{error}");
    };
    let without = |name: &'static str| move |call: &mut Value| drop(call.as_object_mut().unwrap().remove(name));
    refused(&without("state"), "calls[0].state");
    refused(&without("probe"), "calls[0].probe");
    refused(&|call| call["request"]["path"] = "//CANARY".into(), "calls[0].request.path");
    refused(&|call| call["request"]["path"] = "CANARY".into(), "calls[0].request.path");
    refused(&|call| call["request"]["path"] = "/a?b={service}".into(), "calls[0].request.path");
    refused(&|call| call["request"]["path"] = "/{host}".into(), "calls[0].request.path");
    refused(&|call| call["request"]["body"]["key"] = "{CANARY}".into(), "calls[0].request.body");
    refused(&|call| call["state"]["request"]["method"] = "POST".into(), "calls[0].state.request.method");
    refused(&|call| call["state"]["pointers"] = json!([]), "calls[0].state.pointers");
    refused(&|call| call["state"]["shown"] = json!(["/CANARY"]), "calls[0].state.shown");
    refused(&|call| call["probe"]["applied"] = json!([]), "calls[0].probe.applied");
    refused(&|call| call["undo"]["call"] = "show".into(), "calls[0].undo.call");
    refused(&|call| call["undo"]["arguments"] = json!({}), "calls[0].undo.arguments");
}

#[test]
fn a_target_that_is_down_is_unavailable() {
    let tool = tool(&targets("http://127.0.0.1:1"));
    let planned = tool.plan(&call("http", "rollback", "supervisor", json!({ "service": "cart" })));
    assert!(matches!(planned, Err(ToolError::Unavailable(_))), "{planned:?}");
}
