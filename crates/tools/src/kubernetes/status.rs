//! Read-only diagnostics of workloads and pods.

use serde_json::{Value, json};
use wardroom_respond::ToolError;

use super::action::revision;
use super::cluster::Cluster;
use super::rollout::{Rollout, rollout};

/// State of a workload, with the revisions that still exist.
pub(super) async fn workload(cluster: &Cluster, namespace: &str, path: &str) -> Result<Value, ToolError> {
    let object = cluster.get(path).await?;
    let list = cluster.get(&format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).await?;
    let uid = &object["metadata"]["uid"];
    let is_own = |set: &&Value| {
        set["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["uid"] == *uid)
    };
    let sets = list["items"].as_array().into_iter().flatten().filter(is_own);
    let revisions: Vec<Value> = sets
        .map(|set| {
            json!({ "revision": revision(set), "created_at": set["metadata"]["creationTimestamp"],
            "images": images(set), "replicas": set["spec"]["replicas"] })
        })
        .collect();
    let rollout = match rollout(&object) {
        Rollout::Done => "done".to_owned(),
        Rollout::Running(text) => format!("running: {text}"),
        Rollout::Stuck(reason) => format!("stuck: {reason}"),
    };
    Ok(json!({ "replicas": object["spec"]["replicas"], "images": images(&object), "revision": revision(&object),
        "rollout": rollout, "conditions": object["status"]["conditions"], "revisions": revisions }))
}

/// Pods of the namespace: phase, restarts, and why containers wait or ended.
pub(super) async fn pods(cluster: &Cluster, namespace: &str) -> Result<Value, ToolError> {
    let list = cluster.get(&format!("/api/v1/namespaces/{namespace}/pods?limit=500")).await?;
    let rows: Vec<Value> = list["items"].as_array().into_iter().flatten().map(row).collect();
    Ok(json!({ "rows": rows }))
}

fn row(pod: &Value) -> Value {
    let containers = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let restarts: u64 = containers.iter().filter_map(|container| container["restartCount"].as_u64()).sum();
    let reasons: Vec<String> = containers
        .iter()
        .filter_map(|container| {
            let waiting = container["state"]["waiting"]["reason"].as_str();
            let ended = container["lastState"]["terminated"]["reason"].as_str();
            Some(format!("{}: {}", container["name"].as_str()?, waiting.or(ended)?))
        })
        .collect();
    json!({ "name": pod["metadata"]["name"], "node": pod["spec"]["nodeName"], "phase": pod["status"]["phase"],
        "restarts": restarts, "reasons": reasons, "started_at": pod["status"]["startTime"] })
}

fn images(object: &Value) -> Vec<&Value> {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    containers.into_iter().flatten().map(|container| &container["image"]).collect()
}
