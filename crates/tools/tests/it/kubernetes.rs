//! `kubernetes` against a server made from Kubernetes' published description, which the official client accepts.

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_tools::programs::NoPrograms;
use wardroom_tools::{Context, SecretsConfig};

use super::contract::{self, Case, Cut};
use super::support::kubernetes_cluster::{KubernetesCluster, TOKEN, pod_path};
use super::{call, cut_proxy, tool_with};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/cart";
const NODE: &str = "/api/v1/nodes/node-a";

struct Fixture {
    cluster: KubernetesCluster,
    tool: Box<dyn Tool>,
    context: Context,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let cluster = KubernetesCluster::start();
    let context = Context::new(SecretsConfig::default(), Arc::new(NoPrograms), dir.path());
    let tool = tool_with(&targets(&cluster.api.url), &context);
    Fixture { cluster, tool, context, _dir: dir }
}

fn targets(url: &str) -> Value {
    let target = |name: &str| {
        json!({ "tool": "kubernetes", "name": name, "url": url, "token": TOKEN, "namespace": "shop",
        "timeout-seconds": 3 })
    };
    let mut cart = target("cart");
    cart["workload"] = json!("deployment/cart");
    json!([cart, target("cluster")])
}

fn kubernetes(operation: &str, target: &str, arguments: Value) -> ToolCall {
    call("kubernetes", operation, target, arguments)
}

/// The calls, with the object that another user changes to make a plan stale.
fn cases() -> Vec<(ToolCall, &'static str)> {
    let image = json!({ "container": "app", "image": "registry.example:5000/shop:3" });
    vec![
        (kubernetes("restart", "cart", json!({})), DEPLOYMENT),
        // Without a number: going back gives a revision a new one.
        (kubernetes("undo", "cart", json!({})), DEPLOYMENT),
        (kubernetes("scale", "cart", json!({ "replicas": 5 })), DEPLOYMENT),
        (kubernetes("scale", "cluster", json!({ "workload": "statefulset/queue", "replicas": 4 })), STATEFUL_SET),
        (kubernetes("set_image", "cart", image), DEPLOYMENT),
        (kubernetes("set_resources", "cart", json!({ "container": "app", "memory_limit": "512Mi" })), DEPLOYMENT),
        (kubernetes("cordon", "cluster", json!({ "node": "node-a" })), NODE),
        (kubernetes("uncordon", "cluster", json!({ "node": "node-a" })), NODE),
        (kubernetes("delete_pod", "cluster", json!({ "pod": "cart-2-0" })), ""),
        (kubernetes("drain", "cluster", json!({ "node": "node-a" })), ""),
    ]
}

const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/queue";

/// Puts the cluster back, so that each call can be planned again.
fn reset(cluster: &KubernetesCluster, operation: &str) {
    let mut state = cluster.state();
    if matches!(operation, "cordon" | "uncordon" | "drain") {
        state.change(NODE, |node| node["spec"]["unschedulable"] = json!(operation == "uncordon"));
    }
    if matches!(operation, "delete_pod" | "drain") {
        state.replace_pod("cart-2-0");
    }
}

/// Changes that the cluster kept; of a drain only the first, which the others follow from.
fn effects(cluster: &KubernetesCluster, operation: &str) -> usize {
    let effects = &cluster.state().effects;
    effects.iter().filter(|effect| operation != "drain" || !effect.starts_with("evict")).count()
}

#[test]
fn every_operation_holds_the_contract() {
    let Fixture { cluster, tool, .. } = &fixture();
    for (index, (call, other)) in cases().into_iter().enumerate() {
        let operation = call.operation.clone();
        let other_change = || match operation.as_str() {
            "delete_pod" | "drain" => cluster.state().replace_pod("cart-2-0"),
            "cordon" | "uncordon" => cluster.state().change(other, |node| {
                let cordoned = node["spec"]["unschedulable"].as_bool().unwrap_or_default();
                node["spec"]["unschedulable"] = json!(!cordoned);
            }),
            _ => cluster.state().change(other, |object| object["spec"]["minReadySeconds"] = json!(index)),
        };
        let count = || effects(cluster, &operation);
        let key = format!("{operation}-{index}");
        let case = Case { tool: tool.as_ref(), call, other_change: &other_change, effects: &count, key: &key };
        reset(cluster, &operation);
        contract::refused(&case);
        contract::twice_and_undone(&case);
        reset(cluster, &operation);
        contract::stale(&case);
    }
    assert_eq!(cluster.api.violations(), Vec::<String>::new());
}

#[test]
fn an_interrupted_execution_takes_effect_at_most_once() {
    let fixture = fixture();
    let cut = Arc::new(Cut::default());
    let address = fixture.cluster.api.url.strip_prefix("http://").unwrap();
    let proxy = format!("http://{}", cut_proxy::tcp(address, &cut));
    let cut_off = tool_with(&targets(&proxy), &fixture.context);
    for (index, (call, _)) in cases().into_iter().enumerate() {
        let operation = call.operation.clone();
        let count = || effects(&fixture.cluster, &operation);
        let key = format!("{operation}-{index}");
        let case = Case { tool: fixture.tool.as_ref(), call, other_change: &|| (), effects: &count, key: &key };
        let mut interruptions = 0;
        for (step, after) in (0..100).flat_map(|step| [(step, false), (step, true)]) {
            reset(&fixture.cluster, &operation);
            if !contract::interrupted(&case, cut_off.as_ref(), &cut, step, after) {
                break;
            }
            interruptions += 1;
        }
        assert!(interruptions > 3, "{operation}: {interruptions}");
    }
}

#[test]
fn plans_show_what_the_server_makes_of_the_change() {
    let Fixture { cluster, tool, .. } = &fixture();
    let plan =
        |operation: &str, target: &str, arguments: Value| tool.plan(&kubernetes(operation, target, arguments)).unwrap();
    let image = plan("set_image", "cart", json!({ "container": "app", "image": "shop:3" }));
    assert_eq!(image.diff, "deployment/cart: spec.template.spec.containers[app].image: shop:2 → shop:3");
    assert_eq!((image.affected, image.undo.unwrap().arguments["image"].as_str()), (Some(3), Some("shop:2")));
    let undo = plan("undo", "cart", json!({}));
    assert!(undo.diff.contains("image: shop:2 → shop:1") && !undo.diff.contains("pod-template-hash"), "{}", undo.diff);
    assert_eq!(undo.undo.unwrap().arguments["revision"], 2);
    let scale = plan("scale", "cart", json!({ "replicas": 1 }));
    assert_eq!((scale.diff.as_str(), scale.affected), ("deployment/cart: spec.replicas: 3 → 1", Some(2)));
    let drain = plan("drain", "cluster", json!({ "node": "node-a" }));
    assert_eq!(drain.diff, "node/node-a takes no new pods, and 2 are evicted: cart-2-0, cart-2-1");
    assert!(cluster.state().effects.is_empty(), "{:?}", cluster.state().effects);
    for text in [&image.diff, &undo.diff] {
        assert!(!text.contains("canary"), "{text}");
    }
    let read = |operation: &str, arguments: Value| {
        tool.read(&kubernetes(operation, "cart", arguments), std::time::Duration::ZERO).unwrap()
    };
    assert_eq!(read("status", json!({}))["revisions"].as_array().unwrap().len(), 2);
    assert_eq!(read("pods", json!({}))["rows"][0]["reasons"][0], "app: OOMKilled");
}

#[test]
fn what_would_break_is_refused() {
    let Fixture { cluster, tool, .. } = &fixture();
    let refused = |operation: &str, target: &str, arguments: Value, reason: &str| {
        let error = tool.plan(&kubernetes(operation, target, arguments)).unwrap_err();
        assert!(matches!(&error, ToolError::Invalid(text) if text.contains(reason)), "{error}");
    };
    refused("undo", "cart", json!({ "revision": 7 }), "no such earlier revision; there are 1");
    refused("scale", "cart", json!({ "replicas": 0 }), "an outage");
    refused("scale", "cart", json!({ "replicas": 3 }), "nothing would change");
    refused(
        "set_image",
        "cart",
        json!({ "container": "sidecar", "image": "x:1" }),
        "no container \"sidecar\"; there are app",
    );
    refused("restart", "cart", json!({ "workload": "deployment/payments" }), "this target is deployment/cart");
    refused("restart", "cluster", json!({}), "workload is missing");
    refused("restart", "cluster", json!({ "workload": "deployment/../../secrets" }), "no name of Kubernetes");
    refused("undo", "cluster", json!({ "workload": "statefulset/queue" }), "is for deployment");
    refused("drain", "cart", json!({ "node": "node-a" }), "this target is one workload");
    refused("delete_pod", "cluster", json!({ "pod": "gone" }), "has no /api/v1/namespaces/shop/pods/gone");
    let pod = pod_path("shop", "cart-2-0");
    cluster.state().change(&pod, |pod| pod["spec"]["volumes"] = json!([{ "name": "data", "emptyDir": {} }]));
    refused("drain", "cluster", json!({ "node": "node-a" }), "data on the node");
    let with_leave = kubernetes("drain", "cluster", json!({ "node": "node-a", "delete_local_data": true }));
    assert!(tool.plan(&with_leave).is_ok());
    cluster.state().change(&pod, |pod| pod["metadata"]["ownerReferences"] = json!([]));
    refused("drain", "cluster", json!({ "node": "node-a" }), "no workload that would start it elsewhere");
    cluster.state().remove(&pod);
    cluster.state().held_back.insert("cart-2-1".to_owned(), u32::MAX);
    refused("drain", "cluster", json!({ "node": "node-a" }), "disruption budgets allow no eviction now of cart-2-1");
    assert!(cluster.state().effects.is_empty(), "{:?}", cluster.state().effects);
    let wrong = json!([{ "tool": "kubernetes", "name": "cart", "url": cluster.api.url, "token": "wrong" }]);
    let error = tool_with(&wrong, &fixture().context).plan(&kubernetes(
        "restart",
        "cart",
        json!({ "workload": "deployment/cart" }),
    ));
    assert!(matches!(&error, Err(ToolError::Invalid(text)) if text.contains("401")), "{error:?}");
}

#[test]
fn rollouts_and_drains_are_followed_to_their_end() {
    let Fixture { cluster, tool, .. } = &fixture();
    let progress = std::sync::Mutex::new(Vec::new());
    let report = |text: &str| progress.lock().unwrap().push(text.to_owned());
    let execute = |call: &ToolCall, key: &str| {
        let precondition = tool.plan(call).unwrap().precondition;
        tool.execute(call, &Run { progress: &report, ..Run::new(&precondition, key) }).unwrap()
    };
    let restart = kubernetes("restart", "cart", json!({}));
    let applied = execute(&restart, "restart");
    assert!(applied.outcome == Outcome::Applied && applied.detail.contains("rolled out"), "{applied:?}");
    assert!(progress.lock().unwrap().iter().any(|text| text.contains("not yet seen")), "{progress:?}");
    // The budget lets the pod go at the third attempt.
    let drain = kubernetes("drain", "cluster", json!({ "node": "node-a" }));
    let precondition = tool.plan(&drain).unwrap().precondition;
    cluster.state().held_back.insert("cart-2-1".to_owned(), 1);
    let applied = tool.execute(&drain, &Run { progress: &report, ..Run::new(&precondition, "drain") }).unwrap();
    assert_eq!((applied.outcome, applied.detail.as_str()), (Outcome::Applied, "node/node-a is drained"));
    assert!(
        progress.lock().unwrap().iter().any(|text| text.contains("1 of them held back by a budget")),
        "{progress:?}"
    );
    assert_eq!(cluster.state().object(NODE)["spec"]["unschedulable"], true);
    // A rollout that the cluster gives up is a change all the same, and can be undone.
    cluster.state().is_stuck = true;
    let image = kubernetes("set_image", "cart", json!({ "container": "app", "image": "shop:broken" }));
    let applied = execute(&image, "image");
    assert!(applied.outcome == Outcome::Applied && applied.detail.contains("does not go on"), "{applied:?}");
    // An answer that is lost is found in the object.
    cluster.state().is_stuck = false;
    cluster.state().lose_next_answer = true;
    let precondition = tool.plan(&restart).unwrap().precondition;
    let lost = tool.execute(&restart, &Run::new(&precondition, "lost"));
    assert!(matches!(lost, Err(ToolError::Unavailable(_))), "{lost:?}");
    assert_eq!(tool.probe(&restart, &precondition, "lost"), Ok(Outcome::Applied));
    assert_eq!(cluster.api.violations(), Vec::<String>::new());
}
