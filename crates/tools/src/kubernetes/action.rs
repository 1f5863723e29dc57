//! What a call asks for, and the patches that do it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wardroom_domain::ToolCall;
use wardroom_respond::{NoArguments, Operation, Risk, ToolError, operation, parse_arguments, read_operation};

use super::cluster::{KubernetesSettings, is_name};

/// Annotation of an object with the idempotency key of the last operation of this tool.
const KEY_ANNOTATION: &str = "wardroom.dev/last-operation";
/// Annotation of a pod template; a new value makes new pods.
const RESTART_ANNOTATION: &str = "wardroom.dev/restarted-by";
/// Annotation in which Kubernetes counts the revisions of a deployment.
const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Kinds of workloads, with their names in paths.
const KINDS: [(&str, &str); 3] =
    [("deployment", "deployments"), ("statefulset", "statefulsets"), ("daemonset", "daemonsets")];

/// Arguments that name a workload only.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkloadArguments {
    /// Workload, such as `deployment/cart`; that of the target if absent.
    #[schemars(length(min = 3, max = 300))]
    #[serde(default)]
    workload: Option<String>,
}

/// Arguments of `undo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UndoArguments {
    /// Deployment, such as `deployment/cart`; that of the target if absent.
    #[schemars(length(min = 3, max = 300))]
    #[serde(default)]
    workload: Option<String>,
    /// Revision to go back to; the one before the current one if absent.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(default)]
    revision: Option<u64>,
}

/// Arguments of `scale`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScaleArguments {
    /// Deployment or stateful set; that of the target if absent.
    #[schemars(length(min = 3, max = 300))]
    #[serde(default)]
    workload: Option<String>,
    /// Number of pods.
    #[schemars(range(min = 0, max = 1000))]
    replicas: u64,
}

/// Arguments of `set_image`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ImageArguments {
    /// Workload; that of the target if absent.
    #[schemars(length(min = 3, max = 300))]
    #[serde(default)]
    workload: Option<String>,
    /// Name of the container.
    #[schemars(length(min = 1, max = 63))]
    container: String,
    /// Image, with a tag or a digest.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = "^[A-Za-z0-9._/-]+(:[0-9]+/[A-Za-z0-9._/-]+)?(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?$")
    )]
    image: String,
}

/// Arguments of `set_resources`: quantities of Kubernetes, such as `500m` or `512Mi`; what is absent stays as it is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResourceArguments {
    /// Workload; that of the target if absent.
    #[schemars(length(min = 3, max = 300))]
    #[serde(default)]
    workload: Option<String>,
    /// Name of the container.
    #[schemars(length(min = 1, max = 63))]
    container: String,
    /// Limit of processor time, in cores, such as `500m`.
    #[schemars(length(min = 1, max = 20), regex(pattern = "^[0-9]+(\\.[0-9]+)?m?$"))]
    #[serde(default)]
    cpu_limit: Option<String>,
    /// Limit of memory, in bytes, such as `512Mi`.
    #[schemars(length(min = 1, max = 20), regex(pattern = "^[0-9]+(\\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"))]
    #[serde(default)]
    memory_limit: Option<String>,
}

/// Arguments of `delete_pod`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PodArguments {
    /// Name of the pod.
    #[schemars(length(min = 1, max = 253))]
    pod: String,
}

/// Arguments of `cordon` and `uncordon`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NodeArguments {
    /// Name of the node.
    #[schemars(length(min = 1, max = 253))]
    node: String,
}

/// Arguments of `drain`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DrainArguments {
    /// Name of the node.
    #[schemars(length(min = 1, max = 253))]
    node: String,
    /// Whether pods with data on the node (`emptyDir`) may be evicted, which deletes it. Default false.
    #[serde(default)]
    delete_local_data: bool,
}

/// Returns the operations.
pub(super) fn operations() -> Vec<Operation> {
    let restart = "replace all pods of a workload, as fast as its strategy allows";
    let undo = "go back to an earlier revision of a deployment that still exists";
    vec![
        operation::<WorkloadArguments>("restart", restart, Risk::Low, false),
        operation::<UndoArguments>("undo", undo, Risk::Medium, true),
        operation::<ScaleArguments>("scale", "change the number of pods", Risk::Medium, true),
        operation::<ImageArguments>("set_image", "change the image of one container", Risk::Medium, true),
        operation::<ResourceArguments>("set_resources", "change the limits of one container", Risk::Medium, true),
        operation::<PodArguments>("delete_pod", "delete one pod; its workload makes another", Risk::Low, false),
        operation::<NodeArguments>("cordon", "place no new pods on a node", Risk::Low, true),
        operation::<NodeArguments>("uncordon", "place new pods on a node again", Risk::Low, true),
        operation::<DrainArguments>("drain", "evict the pods of a node within their budgets", Risk::High, false),
        read_operation::<WorkloadArguments>("status", "state of a workload, with its revisions and pods"),
        read_operation::<NoArguments>("pods", "pods of the namespace, with restarts and reasons"),
    ]
}

/// A parsed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) object: Object,
    pub(super) change: Change,
}

/// What a call acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Workload { kind: &'static str, path: String, name: String },
    Pod { path: String, name: String },
    Node { path: String, name: String },
    Namespace,
}

/// What a call changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Restart,
    Undo { revision: Option<u64> },
    Scale { replicas: u64 },
    Image { container: String, image: String },
    Resources { container: String, limits: Vec<(&'static str, String)> },
    DeletePod,
    Unschedulable(bool),
    Drain { delete_local_data: bool },
    None,
}

impl Action {
    /// Parses a call.
    pub(super) fn of(call: &ToolCall, settings: &KubernetesSettings) -> Result<Self, ToolError> {
        let arguments = &call.arguments;
        let workload = |named: Option<String>| workload(named, settings);
        let node = |name: String| {
            let path = format!("/api/v1/nodes/{}", checked(&name)?);
            Ok::<_, ToolError>(Object::Node { path, name })
        };
        let (object, change) = match call.operation.as_str() {
            "restart" => (workload(parse_arguments::<WorkloadArguments>(arguments)?.workload)?, Change::Restart),
            "undo" => {
                let UndoArguments { workload: named, revision } = parse_arguments(arguments)?;
                (only(workload(named)?, &["deployment"])?, Change::Undo { revision })
            }
            "scale" => {
                let ScaleArguments { workload: named, replicas } = parse_arguments(arguments)?;
                (only(workload(named)?, &["deployment", "statefulset"])?, Change::Scale { replicas })
            }
            "set_image" => {
                let ImageArguments { workload: named, container, image } = parse_arguments(arguments)?;
                (workload(named)?, Change::Image { container, image })
            }
            "set_resources" => {
                let ResourceArguments { workload: named, container, cpu_limit, memory_limit } =
                    parse_arguments(arguments)?;
                let limits = [("cpu", cpu_limit), ("memory", memory_limit)].into_iter();
                let limits: Vec<_> = limits.filter_map(|(name, limit)| Some((name, limit?))).collect();
                if limits.is_empty() {
                    return Err(ToolError::Invalid("arguments: give cpu_limit, memory_limit, or both".to_owned()));
                }
                (workload(named)?, Change::Resources { container, limits })
            }
            "delete_pod" => {
                let PodArguments { pod: name } = parse_arguments(arguments)?;
                let path = format!("/api/v1/namespaces/{}/pods/{}", settings.namespace, checked(&name)?);
                (Object::Pod { path, name }, Change::DeletePod)
            }
            "cordon" => (node(parse_arguments::<NodeArguments>(arguments)?.node)?, Change::Unschedulable(true)),
            "uncordon" => (node(parse_arguments::<NodeArguments>(arguments)?.node)?, Change::Unschedulable(false)),
            "drain" => {
                let DrainArguments { node: name, delete_local_data } = parse_arguments(arguments)?;
                (node(name)?, Change::Drain { delete_local_data })
            }
            "status" => (workload(parse_arguments::<WorkloadArguments>(arguments)?.workload)?, Change::None),
            "pods" => (parse_arguments::<NoArguments>(arguments).map(|_| Object::Namespace)?, Change::None),
            other => return Err(ToolError::Invalid(format!("kubernetes has no operation {other:?}"))),
        };
        if matches!(object, Object::Node { .. }) && settings.workload.is_some() {
            let detail = "this target is one workload; declare a target without `workload` to act on nodes";
            return Err(ToolError::Invalid(detail.to_owned()));
        }
        Ok(Self { object, change })
    }

    pub(super) fn path(&self) -> &str {
        match &self.object {
            Object::Workload { path, .. } | Object::Pod { path, .. } | Object::Node { path, .. } => path,
            Object::Namespace => "",
        }
    }

    /// Name for people, such as `deployment/cart`.
    pub(super) fn object_name(&self) -> String {
        match &self.object {
            Object::Workload { kind, name, .. } => format!("{kind}/{name}"),
            Object::Pod { name, .. } => format!("pod/{name}"),
            Object::Node { name, .. } => format!("node/{name}"),
            Object::Namespace => "the namespace".to_owned(),
        }
    }

    /// Returns the patch that makes the change, without the idempotency key. `template` is the pod template to go back
    /// to.
    pub(super) fn patch(&self, object: &Value, template: Option<&Value>, key: &str) -> Result<Vec<Value>, ToolError> {
        Ok(match &self.change {
            Change::Restart => add_annotation(object, "/spec/template/metadata", RESTART_ANNOTATION, key),
            Change::Undo { .. } => {
                let template =
                    template.ok_or_else(|| ToolError::Invalid("the revision has no pod template".to_owned()))?;
                vec![json!({ "op": "replace", "path": "/spec/template", "value": template })]
            }
            Change::Scale { replicas } => vec![json!({ "op": "replace", "path": "/spec/replicas", "value": replicas })],
            Change::Image { container, image } => {
                let index = container_index(object, container)?;
                let path = format!("/spec/template/spec/containers/{index}/image");
                vec![json!({ "op": "replace", "path": path, "value": image })]
            }
            Change::Resources { container, limits } => {
                let index = container_index(object, container)?;
                let pointer = format!("/spec/template/spec/containers/{index}/resources");
                let mut resources = object.pointer(&pointer).cloned().unwrap_or_else(|| json!({}));
                for (name, limit) in limits {
                    resources["limits"][*name] = json!(limit);
                }
                vec![json!({ "op": "add", "path": pointer, "value": resources })]
            }
            Change::Unschedulable(true) | Change::Drain { .. } => {
                vec![json!({ "op": "add", "path": "/spec/unschedulable", "value": true })]
            }
            Change::Unschedulable(false) => vec![json!({ "op": "add", "path": "/spec/unschedulable", "value": false })],
            Change::DeletePod | Change::None => Vec::new(),
        })
    }

    /// Returns the arguments that undo the change of an object, if it can be undone.
    pub(super) fn undo(&self, call: &ToolCall, object: &Value) -> Option<ToolCall> {
        let operation = match &self.change {
            Change::Unschedulable(true) => "uncordon",
            Change::Unschedulable(false) => "cordon",
            _ => call.operation.as_str(),
        };
        let mut arguments = Map::new();
        if let Some(workload) = call.arguments.get("workload") {
            arguments.insert("workload".to_owned(), workload.clone());
        }
        match &self.change {
            Change::Undo { .. } => drop(arguments.insert("revision".to_owned(), json!(revision(object)?))),
            Change::Scale { .. } => drop(arguments.insert("replicas".to_owned(), object["spec"]["replicas"].clone())),
            Change::Image { container, .. } => {
                let index = container_index(object, container).ok()?;
                arguments.insert("container".to_owned(), json!(container));
                let image = object.pointer(&format!("/spec/template/spec/containers/{index}/image"))?;
                arguments.insert("image".to_owned(), image.clone());
            }
            Change::Resources { container, limits } => {
                let index = container_index(object, container).ok()?;
                arguments.insert("container".to_owned(), json!(container));
                for (name, _) in limits {
                    // A limit that was not there cannot be put back by this operation.
                    let pointer = format!("/spec/template/spec/containers/{index}/resources/limits/{name}");
                    arguments.insert(format!("{name}_limit"), object.pointer(&pointer)?.clone());
                }
            }
            Change::Unschedulable(_) => {
                arguments.insert("node".to_owned(), object["metadata"]["name"].clone());
            }
            // Evicted pods do not come back: `uncordon` only lets new ones in.
            Change::Restart | Change::DeletePod | Change::Drain { .. } | Change::None => return None,
        }
        Some(ToolCall { operation: operation.to_owned(), arguments, ..call.clone() })
    }
}

/// Adds to a patch the idempotency key, and the condition that the object is the one that was read: the server answers
/// 409 if it has changed.
pub(super) fn with_key(mut patch: Vec<Value>, object: &Value, key: &str) -> Vec<Value> {
    let version = &object["metadata"]["resourceVersion"];
    patch.push(json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": version }));
    patch.extend(add_annotation(object, "/metadata", KEY_ANNOTATION, key));
    patch
}

/// Returns the idempotency key of the last operation on an object; `nothing` if there was none.
pub(super) fn last_key(object: &Value) -> &str {
    object["metadata"]["annotations"][KEY_ANNOTATION].as_str().unwrap_or("nothing")
}

/// The precondition of a plan: the object, its specification, and the last operation of this tool on it. Not the
/// `resourceVersion`: the object's status is part of it and changes all the time where something is wrong. The version
/// that was read is part of the patch instead.
pub(super) fn fingerprint(object: &Value) -> String {
    let metadata = &object["metadata"];
    let uid = metadata["uid"].as_str().unwrap_or_default();
    let cordoned = object["spec"]["unschedulable"].as_bool().unwrap_or_default();
    format!("uid={uid} generation={} unschedulable={cordoned} after={}", metadata["generation"], last_key(object))
}

/// The revision of a deployment or replica set.
pub(super) fn revision(object: &Value) -> Option<u64> {
    object["metadata"]["annotations"][REVISION_ANNOTATION].as_str()?.parse().ok()
}

/// Operations that set an annotation, whether or not there are others.
fn add_annotation(object: &Value, parent: &str, name: &str, value: &str) -> Vec<Value> {
    let escaped = name.replace('~', "~0").replace('/', "~1");
    let missing = |pointer: &str| object.pointer(pointer).is_none_or(Value::is_null);
    let mut patch = Vec::new();
    if missing(parent) {
        patch.push(json!({ "op": "add", "path": parent, "value": {} }));
    }
    if missing(&format!("{parent}/annotations")) {
        patch.push(json!({ "op": "add", "path": format!("{parent}/annotations"), "value": {} }));
    }
    patch.push(json!({ "op": "add", "path": format!("{parent}/annotations/{escaped}"), "value": value }));
    patch
}

fn container_index(object: &Value, name: &str) -> Result<usize, ToolError> {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    containers.iter().position(|container| container["name"] == name).ok_or_else(|| {
        let known: Vec<&str> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
        ToolError::Invalid(format!("there is no container {name:?}; there are {}", known.join(", ")))
    })
}

/// Returns the workload that a call names, or that of the target.
fn workload(named: Option<String>, settings: &KubernetesSettings) -> Result<Object, ToolError> {
    let text = match (named, &settings.workload) {
        (Some(named), Some(allowed)) if named != *allowed => {
            return Err(ToolError::Invalid(format!("this target is {allowed}, not {named}")));
        }
        (Some(named), _) => named,
        (None, Some(allowed)) => allowed.clone(),
        (None, None) => return Err(ToolError::Invalid("arguments: workload is missing".to_owned())),
    };
    let unknown =
        || ToolError::Invalid(format!("workload {text:?}: write deployment/NAME, statefulset/NAME or daemonset/NAME"));
    let (kind, name) = text.split_once('/').ok_or_else(unknown)?;
    let (kind, plural) = KINDS.iter().find(|(known, _)| *known == kind).ok_or_else(unknown)?;
    let path = format!("/apis/apps/v1/namespaces/{}/{plural}/{}", settings.namespace, checked(name)?);
    Ok(Object::Workload { kind, path, name: name.to_owned() })
}

fn only(object: Object, kinds: &[&str]) -> Result<Object, ToolError> {
    match &object {
        Object::Workload { kind, .. } if !kinds.contains(kind) => {
            Err(ToolError::Invalid(format!("this operation is for {}, not for a {kind}", kinds.join(" and "))))
        }
        _ => Ok(object),
    }
}

fn checked(name: &str) -> Result<&str, ToolError> {
    if is_name(name) { Ok(name) } else { Err(ToolError::Invalid(format!("{name:?} is no name of Kubernetes"))) }
}
