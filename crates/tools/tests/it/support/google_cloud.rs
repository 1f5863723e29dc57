//! A little project behind the discovery files of Google's APIs: a Cloud Run service, an instance and a node pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use wardroom_testing::{ApiAnswer, ApiRequest, DescribedApi};

const DESCRIPTION: &str = include_str!("../apis/gcp.json");
/// Access token.
pub(crate) const TOKEN: &str = "ya29-token-canary-3";
const SERVICE: &str = "projects/p/locations/europe-west1/services/cart";

/// A running project.
pub(crate) struct GoogleCloud {
    pub(crate) api: DescribedApi,
    state: Arc<Mutex<State>>,
}

/// What the project has and does.
pub(crate) struct State {
    pub(crate) service: Value,
    pub(crate) started: String,
    operations: Vec<Value>,
    pub(crate) sizes: [u64; 2],
    pub(crate) wanted: u64,
    pub(crate) autoscaled: bool,
    /// Changes, in order.
    pub(crate) effects: Vec<String>,
    /// Whether the next answer to a change is lost.
    pub(crate) lose_next_answer: bool,
}

impl GoogleCloud {
    /// Starts a project with the service `cart` (revisions `cart-1` and `cart-2`), the instance `db-1` and the node
    /// pool `pool` of the cluster `shop`.
    pub(crate) fn start() -> Self {
        let service = json!({ "name": SERVICE, "generation": "4", "etag": "e4", "reconciling": false,
            "template": { "revision": "cart-2" }, "latestReadyRevision": format!("{SERVICE}/revisions/cart-2"),
            "traffic": [{ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100 }],
            "terminalCondition": { "type": "Ready", "state": "CONDITION_SUCCEEDED" } });
        let state = Arc::new(Mutex::new(State {
            service,
            started: "2026-11-30T10:00:00.000-08:00".to_owned(),
            operations: Vec::new(),
            sizes: [3, 3],
            wanted: 3,
            autoscaled: false,
            effects: Vec::new(),
            lose_next_answer: false,
        }));
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

impl State {
    /// Changes the service as another user would.
    pub(crate) fn change_service(&mut self, traffic: Value) {
        self.service["traffic"] = traffic;
        let generation = self.service["generation"].as_str().unwrap().parse::<u64>().unwrap() + 1;
        self.service["generation"] = json!(generation.to_string());
        self.service["etag"] = json!(format!("e{generation}"));
    }

    fn answer(&mut self, request: &ApiRequest) -> ApiAnswer {
        match request.operation.as_str() {
            "run.projects.locations.services.get" => {
                let service = self.service.clone();
                self.service["reconciling"] = json!(false);
                ApiAnswer::new(200, service)
            }
            "run.projects.locations.services.revisions.get" => self.revision(request.parameter("revisionsId")),
            "run.projects.locations.services.patch" => self.patch_service(request),
            "compute.instances.get" => ApiAnswer::new(
                200,
                json!({ "id": "77", "name": "db-1", "status": "RUNNING", "lastStartTimestamp": self.started,
                    "machineType": "https://www.googleapis.com/compute/v1/projects/p/zones/z/machineTypes/e2-small" }),
            ),
            "compute.instances.reset" => self.reset(request),
            "compute.zoneOperations.list" => {
                let operations = self.operations.clone();
                for operation in &mut self.operations {
                    operation["status"] = json!("DONE");
                }
                ApiAnswer::new(200, json!({ "kind": "compute#operationList", "items": operations }))
            }
            "compute.instanceGroupManagers.get" => {
                let index = usize::from(request.parameter("instanceGroupManager").ends_with('b'));
                ApiAnswer::new(200, json!({ "name": "group", "targetSize": self.sizes[index] }))
            }
            "container.projects.locations.clusters.nodePools.get" => self.node_pool(),
            "container.projects.locations.clusters.nodePools.setSize" => {
                self.wanted = request.body["nodeCount"].as_u64().unwrap();
                let operation =
                    json!({ "name": "operation-1", "status": "RUNNING", "operationType": "SET_NODE_POOL_SIZE" });
                self.change(format!("size {}", self.wanted), operation)
            }
            _ => ApiAnswer::new(404, error("not found")),
        }
    }

    fn revision(&self, name: &str) -> ApiAnswer {
        let state = match name {
            "cart-1" | "cart-2" => "CONDITION_SUCCEEDED",
            "cart-broken" => "CONDITION_FAILED",
            _ => return ApiAnswer::new(404, error("no such revision")),
        };
        let conditions = json!([{ "type": "Ready", "state": state }]);
        ApiAnswer::new(200, json!({ "name": format!("{SERVICE}/revisions/{name}"), "conditions": conditions }))
    }

    fn patch_service(&mut self, request: &ApiRequest) -> ApiAnswer {
        assert_eq!(request.parameter("updateMask"), "traffic,annotations");
        if request.body["etag"] != self.service["etag"] {
            return ApiAnswer::new(409, error("the etag does not match"));
        }
        self.change_service(request.body["traffic"].clone());
        self.service["annotations"] = request.body["annotations"].clone();
        self.service["reconciling"] = json!(true);
        self.change(
            "traffic".to_owned(),
            json!({ "name": "projects/p/locations/europe-west1/operations/1", "done": false }),
        )
    }

    fn reset(&mut self, request: &ApiRequest) -> ApiAnswer {
        let id = request.parameter("requestId").to_owned();
        // As Compute Engine does: the same request again is not done again.
        if let Some(operation) = self.operations.iter().find(|operation| operation["clientOperationId"] == id) {
            return ApiAnswer::new(200, operation.clone());
        }
        let operation = json!({ "name": "operation-2", "clientOperationId": id, "status": "RUNNING",
            "operationType": "reset", "targetLink":
            "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west1-b/instances/db-1" });
        self.operations.push(operation.clone());
        self.change("reset".to_owned(), operation)
    }

    fn node_pool(&mut self) -> ApiAnswer {
        let group = |zone: &str| {
            format!(
                "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west1-{zone}/instanceGroupManagers/g-{zone}"
            )
        };
        let is_ready = self.sizes == [self.wanted; 2];
        let pool = json!({ "name": "pool", "status": if is_ready { "RUNNING" } else { "RECONCILING" },
            "initialNodeCount": 3, "instanceGroupUrls": [group("a"), group("b")],
            "autoscaling": { "enabled": self.autoscaled } });
        // The groups follow.
        self.sizes = [self.wanted; 2];
        ApiAnswer::new(200, pool)
    }

    fn change(&mut self, effect: String, body: Value) -> ApiAnswer {
        self.effects.push(effect);
        ApiAnswer { is_lost: std::mem::take(&mut self.lose_next_answer), ..ApiAnswer::new(200, body) }
    }
}

fn error(message: &str) -> Value {
    json!({ "error": { "code": 404, "message": message } })
}
