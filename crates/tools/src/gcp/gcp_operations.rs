//! What a call asks for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wardroom_domain::ToolCall;
use wardroom_respond::{Operation, Risk, ToolError, operation, parse_arguments, read_operation};

/// Pattern of the names of services, revisions, instances, clusters and node pools (RFC 1035).
const NAME: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// A part of a service's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    /// Name of the revision; the latest ready one if absent.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<String>,
    /// Share of the traffic, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub(super) percent: u64,
}

/// Arguments of `set_traffic`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TrafficArguments {
    /// Name of the Cloud Run service.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    service: String,
    /// Shares of the revisions, 100 percent together.
    #[schemars(length(min = 1, max = 10))]
    traffic: Vec<Share>,
}

/// Arguments of `reset_instance`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InstanceArguments {
    /// Name of the instance.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    instance: String,
}

/// Arguments of `set_node_pool_size`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NodePoolArguments {
    /// Name of the GKE cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    cluster: String,
    /// Name of the node pool.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    node_pool: String,
    /// Number of nodes in each zone of the pool.
    #[schemars(range(min = 1, max = 1000))]
    nodes: u64,
}

/// Arguments of `service`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServiceArguments {
    /// Name of the Cloud Run service.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    service: String,
}

/// A parsed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    SetTraffic { service: String, traffic: Vec<Share> },
    ResetInstance { instance: String },
    SetNodes { cluster: String, node_pool: String, nodes: u64 },
    ReadService { service: String },
}

/// Returns the operations.
pub(super) fn operations() -> Vec<Operation> {
    let traffic = "send the traffic of a Cloud Run service to revisions that exist";
    let reset = "reset a Compute Engine instance, as its reset button does";
    let size = "change the number of nodes of a GKE node pool";
    vec![
        operation::<TrafficArguments>("set_traffic", traffic, Risk::Medium, true),
        operation::<InstanceArguments>("reset_instance", reset, Risk::High, false),
        operation::<NodePoolArguments>("set_node_pool_size", size, Risk::High, true),
        read_operation::<ServiceArguments>("service", "a Cloud Run service's revisions, traffic and conditions"),
    ]
}

impl Action {
    /// Parses a call.
    pub(super) fn of(call: &ToolCall) -> Result<Self, ToolError> {
        let arguments = &call.arguments;
        match call.operation.as_str() {
            "set_traffic" => {
                let TrafficArguments { service, traffic } = parse_arguments(arguments)?;
                let sum: u64 = traffic.iter().map(|share| share.percent).sum();
                if sum != 100 {
                    return Err(ToolError::Invalid(format!(
                        "arguments: traffic: the shares are {sum} percent together, not 100"
                    )));
                }
                Ok(Self::SetTraffic { service, traffic })
            }
            "reset_instance" => {
                Ok(Self::ResetInstance { instance: parse_arguments::<InstanceArguments>(arguments)?.instance })
            }
            "set_node_pool_size" => {
                let NodePoolArguments { cluster, node_pool, nodes } = parse_arguments(arguments)?;
                Ok(Self::SetNodes { cluster, node_pool, nodes })
            }
            "service" => Ok(Self::ReadService { service: parse_arguments::<ServiceArguments>(arguments)?.service }),
            other => Err(ToolError::Invalid(format!("gcp has no operation {other:?}"))),
        }
    }
}

/// Reads the shares that a Cloud Run service asks for.
pub(super) fn shares_of(service: &Value) -> Vec<Share> {
    let targets = service["traffic"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shares = targets.iter().filter_map(|target| {
        let percent = target["percent"].as_u64().filter(|percent| *percent > 0)?;
        let is_latest = target["type"] == "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST";
        let revision = if is_latest { None } else { target["revision"].as_str().map(short_name) };
        Some(Share { revision, percent })
    });
    let shares: Vec<Share> = shares.collect();
    // A service without shares sends everything to its latest revision.
    if shares.is_empty() { vec![Share { revision: None, percent: 100 }] } else { shares }
}

/// Writes shares as Cloud Run takes them.
pub(super) fn targets_of(shares: &[Share]) -> Value {
    let targets = shares.iter().map(|share| match &share.revision {
        None => json!({ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": share.percent }),
        Some(revision) => json!({ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": revision,
            "percent": share.percent }),
    });
    targets.collect::<Vec<_>>().into()
}

/// Shares for people.
pub(super) fn shares_text(shares: &[Share]) -> String {
    let text =
        |share: &Share| format!("{} % {}", share.percent, share.revision.as_deref().unwrap_or("latest revision"));
    shares.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The last part of a resource's name.
pub(super) fn short_name(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}
