//! A little cluster behind the description of Kubernetes' API: objects with versions, generations, optimistic locking,
//! server-side dry run, a controller of deployments that takes its time, and disruption budgets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use wardroom_testing::{ApiAnswer, ApiRequest, DescribedApi};

/// The published description, cut down.
const DESCRIPTION: &str = include_str!("../apis/kubernetes.json");
/// Token of the service account.
pub(crate) const TOKEN: &str = "sa-token-canary-1";

/// A running cluster.
pub(crate) struct KubernetesCluster {
    pub(crate) api: DescribedApi,
    state: Arc<Mutex<State>>,
}

/// What the cluster has and does.
#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Reads of an object until the controller has done what a change asks for.
    pending_reads: u32,
    /// Changes that the cluster kept, in order.
    pub(crate) effects: Vec<String>,
    /// Pods that a disruption budget holds back, and for how many evictions more.
    pub(crate) held_back: BTreeMap<String, u32>,
    /// Whether rollouts never end.
    pub(crate) is_stuck: bool,
    /// Whether the next answer to a change is lost.
    pub(crate) lose_next_answer: bool,
}

impl KubernetesCluster {
    /// Starts a cluster with the deployment `cart` (two revisions), the stateful set `queue` and the node `node-a`.
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::new()));
        let shared = Arc::clone(&state);
        let answer = move |request: &ApiRequest| lock(&shared).answer(request);
        Self { api: DescribedApi::start(DESCRIPTION, TOKEN, answer).unwrap(), state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/cart";
const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/queue";

impl State {
    fn new() -> Self {
        let mut state = Self::default();
        let template = |image: &str| {
            json!({ "metadata": { "labels": { "app": "cart" } }, "spec": { "containers": [{ "name": "app", "image": image,
                "env": [{ "name": "PASSWORD", "value": "env-canary" }],
                "resources": { "limits": { "memory": "256Mi" } } }] } })
        };
        for (kind, path, name) in [("Deployment", DEPLOYMENT, "cart"), ("StatefulSet", STATEFUL_SET, "queue")] {
            let mut object = json!({ "apiVersion": "apps/v1", "kind": kind,
                "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 2,
                    "annotations": { "deployment.kubernetes.io/revision": "2" } },
                "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "cart" } }, "template": template("shop:2") },
                "status": {} });
            if kind == "StatefulSet" {
                object["spec"]["serviceName"] = json!("queue");
                object["status"]["replicas"] = json!(3);
                object["metadata"].as_object_mut().unwrap().remove("annotations");
            }
            state.settle(&mut object);
            state.put(path, object);
        }
        for (revision, image) in [(1, "shop:1"), (2, "shop:2")] {
            let mut template = template(image);
            template["metadata"]["labels"]["pod-template-hash"] = json!(format!("h{revision}"));
            state.put(
                &format!("/replicasets/cart-{revision}"),
                json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "metadata": { "name": format!("cart-{revision}"), "namespace": "shop", "uid": format!("rs-{revision}"),
                        "annotations": { "deployment.kubernetes.io/revision": revision.to_string() },
                        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "cart",
                            "uid": "uid-cart", "controller": true }] },
                    "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "cart" } }, "template": template },
                    "status": { "replicas": 0 } }),
            );
        }
        for index in 0..2 {
            state.put(&pod_path("shop", &format!("cart-2-{index}")), pod(&format!("cart-2-{index}"), "ReplicaSet"));
        }
        state.put(&pod_path("shop", "logs-x"), pod("logs-x", "DaemonSet"));
        state.put(
            "/api/v1/nodes/node-a",
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-a", "uid": "uid-node" }, "spec": {} }),
        );
        state.effects.clear();
        state
    }

    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object);
    }

    /// Changes an object's specification as another user would.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects[path].clone();
        change(&mut object);
        let generation = object["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
        object["metadata"]["generation"] = json!(generation);
        self.settle(&mut object);
        self.put(path, object);
    }

    #[cfg(feature = "kubernetes")]
    pub(crate) fn object(&self, path: &str) -> Value {
        self.objects.get(path).cloned().unwrap_or_default()
    }

    #[cfg(feature = "kubernetes")]
    pub(crate) fn remove(&mut self, path: &str) {
        self.objects.remove(path);
    }

    #[cfg(feature = "kubernetes")]
    pub(crate) fn replace_pod(&mut self, name: &str) {
        let mut object = pod(name, "ReplicaSet");
        object["metadata"]["uid"] = json!(format!("uid-{name}-again-{}", self.version));
        self.put(&pod_path("shop", name), object);
    }

    /// Sets the status as the controller does when a rollout is done.
    fn settle(&self, object: &mut Value) {
        let replicas = object["spec"]["replicas"].clone();
        object["status"]["observedGeneration"] = object["metadata"]["generation"].clone();
        for name in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            object["status"][name] = replicas.clone();
        }
        object["status"].as_object_mut().unwrap().remove("conditions");
    }

    fn answer(&mut self, request: &ApiRequest) -> ApiAnswer {
        let name = request.parameter("name").to_owned();
        let namespace = request.parameter("namespace").to_owned();
        match request.operation.as_str() {
            "readDeployment" => self.read(&format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}")),
            "readStatefulSet" => self.read(&format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}")),
            "readDaemonSet" => self.read(&format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")),
            "readPod" => self.read(&pod_path(&namespace, &name)),
            "readNode" => self.read(&format!("/api/v1/nodes/{name}")),
            "patchDeployment" => {
                self.patch(&format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}"), request)
            }
            "patchStatefulSet" => {
                self.patch(&format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"), request)
            }
            "patchNode" => self.patch(&format!("/api/v1/nodes/{name}"), request),
            "listReplicaSet" => ApiAnswer::new(200, self.list("/replicasets/", "apps/v1", "ReplicaSetList")),
            "listPod" | "listPodOfNode" => ApiAnswer::new(200, self.list("/pods/", "v1", "PodList")),
            "deletePod" => self.delete(&pod_path(&namespace, &name), request),
            "evictPod" => self.evict(&namespace, &name, request),
            _ => status(404, "NotFound", "no such resource"),
        }
    }

    fn read(&mut self, path: &str) -> ApiAnswer {
        let Some(object) = self.objects.get(path).cloned() else { return status(404, "NotFound", "not found") };
        let answer = ApiAnswer::new(200, object.clone());
        // The controller goes on between two requests.
        let is_behind = !self.is_stuck && object["status"]["observedGeneration"] != object["metadata"]["generation"];
        if is_behind && self.pending_reads > 0 {
            self.pending_reads -= 1;
        } else if is_behind {
            let mut settled = object;
            self.settle(&mut settled);
            self.put(path, settled);
        }
        answer
    }

    fn list(&self, part: &str, version: &str, kind: &str) -> Value {
        let items: Vec<&Value> =
            self.objects.iter().filter(|(path, _)| path.contains(part)).map(|(_, object)| object).collect();
        json!({ "apiVersion": version, "kind": kind, "metadata": { "resourceVersion": self.version.to_string() },
            "items": items })
    }

    fn patch(&mut self, path: &str, request: &ApiRequest) -> ApiAnswer {
        let Some(before) = self.objects.get(path).cloned() else { return status(404, "NotFound", "not found") };
        let mut after = before.clone();
        for operation in request.body.as_array().into_iter().flatten() {
            if let Err(reason) = apply(&mut after, operation) {
                return status(422, "Invalid", &reason);
            }
        }
        if after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            return status(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            );
        }
        if after["spec"] != before["spec"] && before["metadata"]["generation"].is_u64() {
            after["metadata"]["generation"] = json!(before["metadata"]["generation"].as_u64().unwrap() + 1);
        }
        if request.query.contains_key("dryRun") {
            return ApiAnswer::new(200, after);
        }
        if after["kind"] == "Deployment" && after["spec"]["template"] != before["spec"]["template"] {
            self.new_revision(&mut after);
        }
        if self.is_stuck {
            after["status"]["observedGeneration"] = after["metadata"]["generation"].clone();
            after["status"]["updatedReplicas"] = json!(1);
            after["status"]["conditions"] = json!([{ "type": "Progressing", "status": "False",
                "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet has timed out progressing." }]);
        }
        self.pending_reads = 1;
        self.effects.push(format!("patch {path}"));
        self.put(path, after);
        ApiAnswer {
            is_lost: std::mem::take(&mut self.lose_next_answer),
            ..ApiAnswer::new(200, self.objects[path].clone())
        }
    }

    /// A changed template gets a replica set, or the one that has it, with the next revision.
    fn new_revision(&mut self, deployment: &mut Value) {
        let pointer = "deployment.kubernetes.io/revision";
        let next = deployment["metadata"]["annotations"][pointer].as_str().unwrap().parse::<u64>().unwrap() + 1;
        deployment["metadata"]["annotations"][pointer] = json!(next.to_string());
        let same = self.objects.iter().find_map(|(path, set)| {
            let mut template = set["spec"]["template"].clone();
            template["metadata"]["labels"].as_object_mut()?.remove("pod-template-hash");
            (set["kind"] == "ReplicaSet" && template == deployment["spec"]["template"]).then(|| path.clone())
        });
        let path = same.unwrap_or_else(|| format!("/replicasets/cart-{next}"));
        let mut set = self.objects.get(&path).unwrap_or(&self.objects["/replicasets/cart-2"]).clone();
        set["metadata"]["name"] = json!(path.rsplit('/').next());
        set["metadata"]["annotations"][pointer] = json!(next.to_string());
        set["spec"]["template"] = deployment["spec"]["template"].clone();
        set["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] = json!(format!("h{next}"));
        self.put(&path, set);
    }

    fn delete(&mut self, path: &str, request: &ApiRequest) -> ApiAnswer {
        let Some(object) = self.objects.get(path).cloned() else { return status(404, "NotFound", "not found") };
        let wanted = &request.body["preconditions"]["uid"];
        if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
            return status(409, "Conflict", "the UID in the precondition does not match");
        }
        self.effects.push(format!("delete {path}"));
        self.objects.remove(path);
        ApiAnswer { is_lost: std::mem::take(&mut self.lose_next_answer), ..ApiAnswer::new(200, object) }
    }

    fn evict(&mut self, namespace: &str, name: &str, request: &ApiRequest) -> ApiAnswer {
        let path = pod_path(namespace, name);
        let is_dry_run = request.query.contains_key("dryRun");
        if !self.objects.contains_key(&path) {
            return status(404, "NotFound", "not found");
        }
        if let Some(left) = self.held_back.get_mut(name).filter(|left| **left > 0) {
            if !is_dry_run {
                *left -= 1;
            }
            return status(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
        }
        if !is_dry_run {
            self.effects.push(format!("evict {name}"));
            self.objects.remove(&path);
        }
        ApiAnswer::new(201, json!({ "apiVersion": "v1", "kind": "Status", "status": "Success", "metadata": {} }))
    }
}

pub(crate) fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn pod(name: &str, owner: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": owner, "name": "x", "uid": "x", "controller": true }] },
        "spec": { "nodeName": "node-a", "containers": [{ "name": "app", "image": "shop:2" }] },
        "status": { "phase": "Running", "containerStatuses": [{ "name": "app", "image": "shop:2", "imageID": "i", "ready": true,
            "restartCount": 4, "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } } }] } })
}

fn status(code: u16, reason: &str, message: &str) -> ApiAnswer {
    ApiAnswer::new(
        code,
        json!({ "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": reason,
            "message": message, "code": code }),
    )
}

/// Applies one operation of a JSON patch (RFC 6902).
fn apply(object: &mut Value, operation: &Value) -> Result<(), String> {
    let path = operation["path"].as_str().unwrap_or_default();
    let (parent, last) = path.rsplit_once('/').ok_or("a path is malformed")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let is_add = operation["op"] == "add";
    let parent_value = object.pointer_mut(parent).ok_or(format!("{parent} does not exist"))?;
    match parent_value {
        Value::Object(map) if is_add || map.contains_key(&last) => {
            map.insert(last, operation["value"].clone());
            Ok(())
        }
        Value::Array(list) => {
            let index: usize = last.parse().map_err(|_| "an index is malformed")?;
            *list.get_mut(index).ok_or("an index is out of range")? = operation["value"].clone();
            Ok(())
        }
        _ => Err(format!("{path} does not exist")),
    }
}
