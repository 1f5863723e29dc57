//! A little chain behind the description of the beacon API, and a Docker engine that runs the validator client: a slot
//! passes with each look at the head.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use wardroom_testing::{ApiAnswer, ApiRequest, DescribedApi};

const BEACON_DESCRIPTION: &str = include_str!("../apis/beacon.json");
/// Written after the documentation of the Docker engine's API, 1.43: only what the tool calls.
const ENGINE_DESCRIPTION: &str = r#"{"definitions": {}, "operations": [
    {"id": "inspect", "method": "GET", "path": "/containers/{id}/json", "query": [], "request": null, "media": "",
     "responses": {"200": {"type": "object", "required": ["Id", "State"]}, "404": {}}},
    {"id": "stop", "method": "POST", "path": "/containers/{id}/stop", "query": ["t"], "request": null, "media": "",
     "responses": {"204": null, "304": null, "404": {}}},
    {"id": "start", "method": "POST", "path": "/containers/{id}/start", "query": [], "request": null, "media": "",
     "responses": {"204": null, "304": null, "404": {}}}]}"#;
/// Slots of an epoch.
pub(crate) const EPOCH_SLOTS: u64 = 8;
/// A root, wherever one is asked for.
const ROOT: &str = "0xcf8e0d4e9587369b2301d0790347320302cc0943d5a1884560367e8208d920f2";

/// A running chain and engine.
pub(crate) struct BeaconChain {
    pub(crate) beacon: DescribedApi,
    pub(crate) engine: DescribedApi,
    state: Arc<Mutex<State>>,
}

/// What the chain shows and the engine does.
pub(crate) struct State {
    pub(crate) slot: u64,
    /// Validators that propose, by slot.
    pub(crate) proposals: BTreeMap<u64, u64>,
    pub(crate) is_syncing: bool,
    /// Another client signs for these validators.
    pub(crate) signed_elsewhere: Vec<u64>,
    /// Last epoch in which the client signed.
    signed_until: u64,
    pub(crate) running: bool,
    starts: u64,
    /// Whether stops are accepted and do nothing.
    pub(crate) ignores_stop: bool,
    /// Stops and starts with their slots, in order.
    pub(crate) effects: Vec<(String, u64)>,
}

impl BeaconChain {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            slot: 100,
            proposals: BTreeMap::new(),
            is_syncing: false,
            signed_elsewhere: Vec::new(),
            signed_until: 0,
            running: true,
            starts: 1,
            ignores_stop: false,
            effects: Vec::new(),
        }));
        let (chain, engine) = (Arc::clone(&state), Arc::clone(&state));
        Self {
            beacon: DescribedApi::start(BEACON_DESCRIPTION, "", move |request| lock(&chain).chain(request)).unwrap(),
            engine: DescribedApi::start(ENGINE_DESCRIPTION, "", move |request| lock(&engine).engine(request)).unwrap(),
            state,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn chain(&mut self, request: &ApiRequest) -> ApiAnswer {
        let epoch = request.parameter("epoch").parse::<u64>().unwrap_or_default();
        if self.running {
            self.signed_until = self.slot / EPOCH_SLOTS;
        }
        match request.operation.as_str() {
            "getSpec" => ApiAnswer::new(
                200,
                json!({ "data": { "SECONDS_PER_SLOT": "12", "SLOTS_PER_EPOCH": EPOCH_SLOTS.to_string() } }),
            ),
            "getSyncingStatus" => {
                self.slot += 1;
                let data = json!({ "head_slot": self.slot.to_string(), "sync_distance": "0", "is_syncing": self.is_syncing,
                    "is_optimistic": false, "el_offline": false });
                ApiAnswer::new(200, json!({ "data": data }))
            }
            "getProposerDuties" => {
                let slots = epoch * EPOCH_SLOTS..(epoch + 1) * EPOCH_SLOTS;
                let duty = |slot: u64| {
                    let index = self.proposals.get(&slot).copied().unwrap_or(999_999);
                    json!({ "pubkey": key(), "validator_index": index.to_string(), "slot": slot.to_string() })
                };
                let data: Vec<Value> = slots.map(duty).collect();
                ApiAnswer::new(200, json!({ "dependent_root": ROOT, "execution_optimistic": false, "data": data }))
            }
            "getAttesterDuties" => {
                let duty = |(position, index): (usize, &Value)| {
                    json!({ "pubkey": key(), "validator_index": index, "committee_index": "1", "committee_length": "128",
                        "committees_at_slot": "2", "validator_committee_index": "7",
                        "slot": (epoch * EPOCH_SLOTS + position as u64).to_string() })
                };
                let indices = request.body.as_array().unwrap();
                let data: Vec<Value> = indices.iter().enumerate().map(duty).collect();
                ApiAnswer::new(200, json!({ "dependent_root": ROOT, "execution_optimistic": false, "data": data }))
            }
            "getLiveness" => {
                let live = |index: &Value| {
                    let number = index.as_str().unwrap().parse::<u64>().unwrap();
                    epoch <= self.signed_until || self.signed_elsewhere.contains(&number)
                };
                let rows = request.body.as_array().unwrap().iter();
                let data: Vec<Value> = rows.map(|index| json!({ "index": index, "is_live": live(index) })).collect();
                ApiAnswer::new(200, json!({ "data": data }))
            }
            _ => ApiAnswer::new(404, json!({ "code": 404, "message": "not found" })),
        }
    }

    fn engine(&mut self, request: &ApiRequest) -> ApiAnswer {
        if request.parameter("id") != "validator" {
            return ApiAnswer::new(404, json!({ "message": "No such container" }));
        }
        match request.operation.as_str() {
            "inspect" => {
                let status = if self.running { "running" } else { "exited" };
                let state = json!({ "Status": status, "Running": self.running, "Pid": if self.running { 42 } else { 0 },
                    "StartedAt": format!("start-{}", self.starts) });
                ApiAnswer::new(200, json!({ "Id": "c1", "State": state }))
            }
            "stop" => {
                self.effects.push(("stop".to_owned(), self.slot));
                self.running &= self.ignores_stop;
                ApiAnswer::new(204, Value::Null)
            }
            _ => {
                self.effects.push(("start".to_owned(), self.slot));
                self.restart();
                ApiAnswer::new(204, Value::Null)
            }
        }
    }

    /// Starts the client, as the engine or another user does.
    pub(crate) fn restart(&mut self) {
        self.running = true;
        self.starts += 1;
    }
}

fn key() -> String {
    format!("0x{}", "93247f2209abcacf57b75a51dafae777".repeat(3))
}
