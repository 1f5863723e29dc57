//! The pods of a node, and which of them a drain evicts.

use std::time::{Duration, Instant};

use serde_json::Value;
use wardroom_domain::canonical::sha256_hex;
use wardroom_respond::{Run, ToolError};

use super::cluster::Cluster;

/// How often evictions that a budget holds back are asked for again, and pods that end are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A pod that a drain evicts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Evicted {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Returns the pods of a node that a drain evicts: all but those that a daemon set or the node itself would start
/// again, and those that have ended.
///
/// # Errors
/// Returns an error if a pod would not be started elsewhere, or would lose data, without leave for that.
pub(super) async fn evicted(cluster: &Cluster, node: &str, delete_local_data: bool) -> Result<Vec<Evicted>, ToolError> {
    let list = cluster.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")).await?;
    let mut pods = Vec::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        if stays(pod) {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &pod["metadata"];
        let found = Evicted {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
        };
        if controller(pod).is_none() {
            let name = &found.name;
            return Err(ToolError::Invalid(format!(
                "pod {name} has no workload that would start it elsewhere; move it first"
            )));
        }
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        if !delete_local_data && { volumes }.any(|volume| volume.get("emptyDir").is_some_and(|data| !data.is_null())) {
            let name = &found.name;
            let remedy = "delete_local_data: true allows to delete it";
            return Err(ToolError::Invalid(format!("pod {name} has data on the node (emptyDir); {remedy}")));
        }
        pods.push(found);
    }
    pods.sort();
    Ok(pods)
}

/// Asks which budgets would hold back an eviction now.
pub(super) async fn held_back(cluster: &Cluster, pods: &[Evicted]) -> Result<Vec<String>, ToolError> {
    let mut held = Vec::new();
    for pod in pods {
        if !cluster.evict(&pod.namespace, &pod.name, &pod.uid, true).await? {
            held.push(pod.name.clone());
        }
    }
    Ok(held)
}

/// Evicts the pods within their budgets and waits until they have ended; false if that takes longer than the run may.
pub(super) async fn evict_all(
    cluster: &Cluster,
    node: &str,
    delete_local_data: bool,
    run: &Run<'_>,
) -> Result<bool, ToolError> {
    let started = Instant::now();
    // Some time is left for what comes after.
    let deadline = started + run.timeout.mul_f32(0.9);
    loop {
        let pods = evicted(cluster, node, delete_local_data).await?;
        if pods.is_empty() {
            return Ok(true);
        }
        let mut held = 0;
        for pod in &pods {
            if !cluster.evict(&pod.namespace, &pod.name, &pod.uid, false).await? {
                held += 1;
            }
        }
        (run.progress)(&format!("{} pods are left on {node}, {held} of them held back by a budget", pods.len()));
        let interval = POLL_INTERVAL.min(run.timeout / 20);
        if Instant::now() + interval > deadline {
            return Ok(false);
        }
        tokio::time::sleep(interval).await;
    }
}

/// The part of a precondition that names the pods, as a hash: they may be many.
pub(super) fn fingerprint(pods: &[Evicted]) -> String {
    let uids: Vec<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
    let hash = sha256_hex(uids.join(" ").as_bytes());
    format!(" pods={}:{}", pods.len(), hash.get(..16).unwrap_or_default())
}

/// Whether a drain leaves a pod alone.
fn stays(pod: &Value) -> bool {
    let is_mirror = !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
    let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    is_mirror || has_ended || controller(pod).is_some_and(|owner| owner["kind"] == "DaemonSet")
}

fn controller(pod: &Value) -> Option<&Value> {
    pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}
