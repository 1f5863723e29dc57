//! `gcp` against a server made from Google's discovery files, which the official client accepts.

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_tools::programs::NoPrograms;
use wardroom_tools::{Context, SecretsConfig};

use super::contract::{self, Case, Cut};
use super::support::google_cloud::{GoogleCloud, TOKEN};
use super::{call, cut_proxy, tool_with};

struct Fixture {
    project: GoogleCloud,
    tool: Box<dyn Tool>,
    context: Context,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let project = GoogleCloud::start();
    let context = Context::new(SecretsConfig::default(), Arc::new(NoPrograms), dir.path());
    let tool = tool_with(&targets(&project.api.url), &context);
    Fixture { project, tool, context, _dir: dir }
}

fn targets(url: &str) -> Value {
    json!([{ "tool": "gcp", "name": "shop", "project": "p", "region": "europe-west1", "zone": "europe-west1-b",
        "access-token": TOKEN, "run-url": url, "compute-url": url, "container-url": url, "timeout-seconds": 2 }])
}

/// A change of the target that is not the tool's.
type OtherChange = fn(&GoogleCloud);

/// The calls, each with such a change.
fn cases() -> Vec<(ToolCall, OtherChange)> {
    let gcp = |operation: &str, arguments: Value| call("gcp", operation, "shop", arguments);
    let traffic = json!([{ "revision": "cart-1", "percent": 90 }, { "percent": 10 }]);
    vec![
        (gcp("set_traffic", json!({ "service": "cart", "traffic": traffic })), |project| {
            let revision =
                json!([{ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": "cart-2", "percent": 100 }]);
            project.state().change_service(revision);
        }),
        (gcp("reset_instance", json!({ "instance": "db-1" })), |project| {
            project.state().started = "2026-11-30T11:00:00.000-08:00".to_owned();
        }),
        (gcp("set_node_pool_size", json!({ "cluster": "shop", "node_pool": "pool", "nodes": 5 })), |project| {
            let mut state = project.state();
            (state.sizes, state.wanted) = ([4, 4], 4);
        }),
    ]
}

#[test]
fn every_operation_holds_the_contract() {
    let fixture = fixture();
    let Fixture { project, tool, .. } = &fixture;
    let effects = || project.state().effects.len();
    for (call, other) in cases() {
        let operation = call.operation.clone();
        let other_change = || other(project);
        let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &effects, key: &operation };
        contract::check(&case);
    }
    assert_eq!(project.api.violations(), Vec::<String>::new());
}

#[test]
fn an_interrupted_execution_takes_effect_at_most_once() {
    let fixture = fixture();
    let cut = Arc::new(Cut::default());
    let address = fixture.project.api.url.strip_prefix("http://").unwrap();
    let proxy = format!("http://{}", cut_proxy::tcp(address, &cut));
    let cut_off = tool_with(&targets(&proxy), &fixture.context);
    let effects = || fixture.project.state().effects.len();
    for (call, _) in cases() {
        let operation = call.operation.clone();
        let case = Case { tool: fixture.tool.as_ref(), call, other_change: &|| (), effects: &effects, key: &operation };
        let interruptions = contract::interrupted_everywhere(&case, cut_off.as_ref(), &cut);
        assert!(interruptions > 4, "{operation}: {interruptions}");
    }
}

#[test]
fn plans_measure_and_refuse_what_would_break() {
    let fixture = fixture();
    let Fixture { project, tool, .. } = &fixture;
    let gcp = |operation: &str, arguments: Value| call("gcp", operation, "shop", arguments);
    let calls: Vec<ToolCall> = cases().into_iter().map(|(call, _)| call).collect();
    let plan = tool.plan(&calls[0]).unwrap();
    assert_eq!(plan.diff, "traffic of cart goes from 100 % latest revision to 90 % cart-1, 10 % latest revision");
    let plan = tool.plan(&calls[2]).unwrap();
    assert_eq!((plan.blast_radius.as_str(), plan.affected), ("4 nodes come", Some(4)));
    assert_eq!(plan.undo.unwrap().arguments["nodes"], 3);
    let refused = |call: &ToolCall, reason: &str| {
        let error = tool.plan(call).unwrap_err();
        assert!(matches!(&error, ToolError::Invalid(text) if text.contains(reason)), "{error}");
    };
    let traffic = |revision: &str| json!({ "service": "cart", "traffic": [{ "revision": revision, "percent": 100 }] });
    refused(&gcp("set_traffic", traffic("cart-9")), "no revision cart-9");
    refused(&gcp("set_traffic", traffic("cart-broken")), "not ready");
    let shares = json!({ "service": "cart", "traffic": [{ "revision": "cart-1", "percent": 60 }] });
    refused(&gcp("set_traffic", shares), "60 percent");
    project.state().autoscaled = true;
    refused(&calls[2], "automatically");
    // Another user's change between reading and writing is a conflict.
    let precondition = tool.plan(&calls[0]).unwrap().precondition;
    project.state().lose_next_answer = true;
    let run = Run::new(&precondition, "lost");
    assert!(matches!(tool.execute(&calls[0], &run), Err(ToolError::Unavailable(_))));
    assert_eq!(tool.probe(&calls[0], &precondition, "lost"), Ok(Outcome::Applied));
    assert_eq!(project.state().effects, ["traffic"]);
    let service = tool.read(&gcp("service", json!({ "service": "cart" })), std::time::Duration::ZERO).unwrap();
    assert_eq!(service["traffic"][0]["revision"], "cart-1");
}
