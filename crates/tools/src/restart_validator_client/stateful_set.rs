//! A validator client that Kubernetes runs: a stateful set of one pod.
//!
//! A stateful set never has two pods of one name, and removes the object of a pod only once the node says that its
//! processes have ended, unless a person deletes it by force. So no pod and no wanted pod is the proof of the stop.

use std::time::Duration;

use serde_json::{Value, json};
use wardroom_respond::ToolError;

use super::instance::Instance;
use crate::kubernetes::cluster::{Cluster, KubernetesSettings, is_name};
use crate::{Context, blocking};

/// Maximum duration of a request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The stateful set with its cluster.
pub(super) struct StatefulSet {
    settings: KubernetesSettings,
    context: Context,
    name: String,
}

impl StatefulSet {
    pub(super) fn open(settings: &KubernetesSettings, context: &Context) -> Result<Self, ToolError> {
        let name = settings.workload.as_deref().and_then(|workload| workload.strip_prefix("statefulset/"));
        let name = name.filter(|name| is_name(name)).ok_or_else(|| {
            ToolError::Invalid("kubernetes.workload must be statefulset/NAME: only that never has two pods".to_owned())
        })?;
        Ok(Self { settings: settings.clone(), context: context.clone(), name: name.to_owned() })
    }

    pub(super) fn name(&self) -> String {
        format!("statefulset/{}", self.name)
    }

    pub(super) fn inspect(&self) -> Result<Instance, ToolError> {
        let pod_path = format!("/api/v1/namespaces/{}/pods/{}-0", self.settings.namespace, self.name);
        blocking::run_local(TIMEOUT, &self.settings.address(), async || {
            let cluster = Cluster::connect(&self.settings, &self.context)?;
            let set = cluster.get(&self.path()).await?;
            let pod = cluster.find(&pod_path).await?;
            Ok(instance(&set, pod.as_ref()))
        })
    }

    /// Sets the number of pods, 0 or 1, if the object is the one that was read.
    pub(super) fn scale(&self, replicas: u64) -> Result<(), ToolError> {
        blocking::run_local(TIMEOUT, &self.settings.address(), async || {
            let cluster = Cluster::connect(&self.settings, &self.context)?;
            let set = cluster.get(&self.path()).await?;
            let patch = [
                json!({ "op": "replace", "path": "/spec/replicas", "value": replicas }),
                json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": set["metadata"]["resourceVersion"] }),
            ];
            cluster.patch(&self.path(), &patch, false).await.map(drop)
        })
    }

    fn path(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/statefulsets/{}", self.settings.namespace, self.name)
    }
}

fn instance(set: &Value, pod: Option<&Value>) -> Instance {
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
    match (wanted, pod) {
        (0, None) => Instance::Stopped,
        (1, Some(pod)) if pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null() => {
            Instance::Running(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
        }
        (wanted, pod) => {
            let phase = pod.map_or("no pod", |pod| pod["status"]["phase"].as_str().unwrap_or("a pod of unknown phase"));
            Instance::Unclear(format!("{wanted} pods are wanted, and there is {phase}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_no_pod_and_no_wanted_pod_is_a_stop() {
        let set = |replicas: u64| json!({ "spec": { "replicas": replicas } });
        let pod = |phase: &str| json!({ "metadata": { "uid": "u" }, "status": { "phase": phase } });
        assert_eq!(instance(&set(0), None), Instance::Stopped);
        assert_eq!(instance(&set(1), Some(&pod("Running"))), Instance::Running("u".to_owned()));
        let mut ending = pod("Running");
        ending["metadata"]["deletionTimestamp"] = json!("2026-11-30T00:00:00Z");
        for (set, pod) in [
            (set(0), Some(pod("Running"))),
            (set(1), Some(ending)),
            (set(1), None),
            (set(1), Some(pod("Pending"))),
            (set(2), Some(pod("Running"))),
        ] {
            assert!(matches!(instance(&set, pod.as_ref()), Instance::Unclear(_)), "{set} {pod:?}");
        }
    }
}
