//! `restart_validator_client` against a beacon node made from the published beacon API, and a Docker engine.

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Applied, Run, Tool, ToolError};
use wardroom_tools::programs::NoPrograms;
use wardroom_tools::{Context, SecretsConfig, Target, check_targets};

use super::contract::{self, Case, Cut};
use super::support::beacon_chain::{BeaconChain, EPOCH_SLOTS};
use super::{call, cut_proxy, tool_with};

struct Fixture {
    chain: BeaconChain,
    tool: Box<dyn Tool>,
    context: Context,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let chain = BeaconChain::start();
    let context = Context::new(SecretsConfig::default(), Arc::new(NoPrograms), dir.path());
    let tool = tool_with(&targets(&chain.beacon.url, &chain.engine.url), &context);
    Fixture { chain, tool, context, _dir: dir }
}

fn targets(beacon: &str, engine: &str) -> Value {
    json!([{ "tool": "restart_validator_client", "name": "staker", "beacon-url": beacon, "validators": [7, 8, 9],
        "docker-container": "validator", "docker-url": engine, "timeout-seconds": 2 }])
}

fn restart() -> ToolCall {
    call("restart_validator_client", "restart", "staker", json!({}))
}

impl Fixture {
    fn execute(&self, key: &str) -> Result<Applied, ToolError> {
        let precondition = self.tool.plan(&restart()).unwrap().precondition;
        self.tool.execute(&restart(), &Run::new(&precondition, key))
    }

    fn effects(&self) -> Vec<String> {
        self.chain.state().effects.iter().map(|(effect, _)| effect.clone()).collect()
    }

    fn starts(&self) -> usize {
        self.effects().iter().filter(|effect| *effect == "start").count()
    }
}

#[test]
fn a_restart_holds_the_contract() {
    let fixture = fixture();
    let other_change = || fixture.chain.state().restart();
    let effects = || fixture.starts();
    let tool = fixture.tool.as_ref();
    let case = Case { tool, call: restart(), other_change: &other_change, effects: &effects, key: "restart" };
    contract::check(&case);
    assert_eq!(fixture.effects(), ["stop", "start"]);
    assert_eq!(fixture.chain.beacon.violations(), Vec::<String>::new());
}

#[test]
fn an_interrupted_restart_never_starts_a_second_client() {
    let fixture = fixture();
    let cut = Arc::new(Cut::default());
    let address = fixture.chain.engine.url.strip_prefix("http://").unwrap();
    let proxy = format!("http://{}", cut_proxy::tcp(address, &cut));
    let cut_off = tool_with(&targets(&fixture.chain.beacon.url, &proxy), &fixture.context);
    let effects = || fixture.starts();
    let case =
        Case { tool: fixture.tool.as_ref(), call: restart(), other_change: &|| (), effects: &effects, key: "cut" };
    let mut interruptions = 0;
    for (step, after) in (0..40).flat_map(|step| [(step, false), (step, true)]) {
        fixture.chain.state().restart();
        if !contract::interrupted(&case, cut_off.as_ref(), &cut, step, after) {
            break;
        }
        interruptions += 1;
    }
    assert!(interruptions > 8, "{interruptions}");
}

#[test]
fn the_client_stops_where_no_proposal_is_near_and_starts_after_a_quiet_epoch() {
    let fixture = fixture();
    // Our proposals, and one of another user.
    fixture.chain.state().proposals = [(105, 7), (110, 8), (116, 1)].into();
    let applied = fixture.execute("slots").unwrap();
    assert_eq!(applied.outcome, Outcome::Applied, "{applied:?}");
    let effects = fixture.chain.state().effects.clone();
    let (stopped, started) = (effects[0].1, effects[1].1);
    // The slot of the head is over: its proposal has been made.
    let window = stopped + 1..stopped + 5;
    assert!(![105, 110].iter().any(|slot| window.contains(slot)), "{effects:?}");
    let quiet_epochs = started / EPOCH_SLOTS - stopped / EPOCH_SLOTS - 1;
    assert!(quiet_epochs >= 1, "{effects:?}");
}

#[test]
fn a_stop_that_is_reported_and_did_not_happen_starts_nothing() {
    let fixture = fixture();
    fixture.chain.state().ignores_stop = true;
    let applied = fixture.execute("ignored").unwrap();
    assert!(applied.outcome == Outcome::Unknown && applied.detail.contains("not provably stopped"), "{applied:?}");
    assert_eq!(fixture.effects(), ["stop"]);
}

#[test]
fn another_client_with_the_same_keys_starts_nothing() {
    let fixture = fixture();
    fixture.chain.state().signed_elsewhere = vec![8];
    let applied = fixture.execute("doppelganger").unwrap();
    let reason = "another client signs for validators 8";
    assert!(applied.outcome == Outcome::Unknown && applied.detail.contains(reason), "{applied:?}");
    assert_eq!(fixture.effects(), ["stop"]);
    let probed = fixture.tool.probe(&restart(), "running start=start-1", "doppelganger");
    assert_eq!(probed, Ok(Outcome::Unknown), "a person decides");
}

#[test]
fn a_beacon_node_behind_the_chain_proves_nothing() {
    let fixture = fixture();
    fixture.chain.state().is_syncing = true;
    let refused = fixture.tool.plan(&restart());
    assert!(matches!(&refused, Err(ToolError::Invalid(text)) if text.contains("behind the chain")), "{refused:?}");
}

#[test]
fn status_and_settings_are_checked() {
    let fixture = fixture();
    let status = call("restart_validator_client", "status", "staker", json!({}));
    let status = fixture.tool.read(&status, std::time::Duration::ZERO).unwrap();
    assert_eq!((&status["live_in_last_epoch"], &status["client"]), (&json!(3), &json!("running start=start-1")));
    let mut both = targets("https://beacon.example", "https://engine.example");
    both[0]["systemd-unit"] = json!("validator.service");
    let mut none = targets("https://beacon.example", "https://engine.example");
    none[0]["validators"] = json!([]);
    for (settings, field) in [(both, "systemd-unit"), (none, "validators")] {
        let targets: Vec<Target> = serde_json::from_value(settings).unwrap();
        assert_eq!(check_targets(&targets).unwrap_err().field, format!("targets[0].{field}"));
    }
}
