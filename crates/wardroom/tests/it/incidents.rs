//! An incident from the first breach to the approval, through the API and the incident page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::server::{create_token, run};
use wardroom_testing::{Server, Shop, SyntheticTelemetry, now_ms, remote_write};

pub(crate) struct Scenario {
    pub(crate) server: Server,
    pub(crate) shop: Shop,
    viewer: String,
    /// Dropped last: both processes use it.
    _dir: tempfile::TempDir,
}

/// Makes `cart` slow and waits until its incident reaches a state.
pub(crate) fn with_slow_cart(environment: &[(&str, &str)], state: &str) -> Scenario {
    with_slow_cart_and("", environment, state)
}

/// Like [`with_slow_cart`], with more targets: YAML list items of the executor's configuration.
pub(crate) fn with_slow_cart_and(targets: &str, environment: &[(&str, &str)], state: &str) -> Scenario {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::start(&dir.path().join("shop"), &[]).unwrap();
    let targets = format!("{}{targets}", shop.target("cart"));
    let server = Server::start(dir.path(), &targets, environment).unwrap();
    let viewer = create_token(&dir.path().join("data"), "vera", "viewer").unwrap();
    let mut telemetry = SyntheticTelemetry::new(now_ms() - 310_000, &["cart", "newsletter"]);
    let usual = json!({ "level": "INFO", "service": "cart", "message": "served" });
    let unusual = json!({ "level": "ERROR", "service": "cart", "message": "<script>alert(1)</script> & \"worse\"" });
    // Only an entity that has logged for minutes can log something new.
    for second in 0..300 {
        let slow: &[&str] = if second < 240 { &[] } else { &["cart"] };
        assert_eq!(server.write(&remote_write::body(telemetry.next_second(slow))).unwrap(), 204);
        if second > 240 || second % 10 == 0 {
            let mut line = if slow.is_empty() { usual.clone() } else { unusual.clone() };
            line["timestamp"] = json!(Timestamp::from_millis(telemetry.at_ms));
            assert_eq!(server.post_json("/ingest/logs", &server.sender_token, &line).unwrap().0, 200);
        }
    }
    let scenario = Scenario { server, shop, viewer, _dir: dir };
    scenario.wait_for_state(state);
    scenario
}

impl Scenario {
    pub(crate) fn incident(&self) -> Value {
        let (status, text) = self.server.get("/api/v1/incidents/INC-1", &self.viewer).unwrap();
        if status == 200 { serde_json::from_str(&text).unwrap() } else { Value::Null }
    }

    pub(crate) fn wait_for_state(&self, state: &str) -> Value {
        let started = Instant::now();
        loop {
            let incident = self.incident();
            if incident["state"] == state {
                return incident;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{state} not reached: {incident:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Posts a decision. Returns status and problem code.
    fn decide(&self, what: &str, token: &str, body: &Value) -> (u16, Value) {
        let (status, response) = self.server.post_json(&format!("/api/v1/incidents/{what}"), token, body).unwrap();
        (status, response["code"].clone())
    }

    /// Submits the form of the page like a browser. Returns status and problem code.
    fn submit_form(&self, token: &str, origin: Option<&str>, fields: &str) -> (u16, Value) {
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        let (status, _, text) =
            self.server.post("/incidents/INC-1/approve", token, &headers, fields.as_bytes()).unwrap();
        let response: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, response["code"].clone())
    }
}

fn form_field<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
    rest.split('"').next().unwrap()
}

#[test]
fn page_accepts_one_approval_from_its_own_origin() {
    let scenario = with_slow_cart(&[], "awaiting_approval");
    let server = &scenario.server;
    let started = Timestamp::from_millis(now_ms());
    let (_, page) = server.get("/incidents/INC-1", &server.responder_token).unwrap();
    assert!(page.contains("<button>Approve</button>") && page.contains("polyline"), "{page}");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "telemetry is not escaped");
    let fields = format!(
        "plan_sha256={}&form_token={}&reason=seen+it",
        form_field(&page, "plan_sha256"),
        form_field(&page, "form_token")
    );
    let own_origin = Some(server.url.as_str());
    let forged = fields.replace("form_token=", "form_token=0");
    assert_eq!(scenario.submit_form(&server.responder_token, None, &fields), (403, json!("wrong_origin")));
    assert_eq!(
        scenario.submit_form(&server.responder_token, Some("http://evil.example"), &fields),
        (403, json!("wrong_origin"))
    );
    assert_eq!(scenario.submit_form(&server.responder_token, own_origin, &forged), (403, json!("bad_form_token")));
    assert_eq!(scenario.submit_form(&scenario.viewer, own_origin, &fields).0, 403, "a viewer may not approve");
    assert_eq!(scenario.incident()["state"], "awaiting_approval", "a rejected form changed the state");
    assert_eq!(scenario.submit_form(&server.responder_token, own_origin, &fields).0, 303);
    let incident = scenario.wait_for_state("verifying");
    assert_eq!((&incident["approved_by"], &incident["execution"]), (&json!("alice"), &json!("applied")));
    let approval = &incident["approval"];
    assert_eq!([&approval["by"], &approval["channel"], &approval["reason"]], ["alice", "page", "seen it"]);
    let timeline = incident["timeline"].as_array().unwrap();
    assert!(timeline.iter().any(|item| item["text"] == "approved by alice: seen it"), "{timeline:#?}");
    let (_, page) = server.get("/incidents/INC-1", &server.responder_token).unwrap();
    assert!(page.contains("Approved by <b>alice</b>") && page.contains("seen it"), "{page}");
    assert_eq!(scenario.submit_form(&server.responder_token, own_origin, &fields), (409, json!("already_used")));
    let effects = scenario.shop.effects_since(started).unwrap();
    assert_eq!(effects, [incident["idempotency_key"].as_str().unwrap()], "one effect, under the plan's key");
}

#[test]
fn decisions_return_the_documented_codes() {
    let scenario = with_slow_cart(&[], "awaiting_approval");
    let (server, alice) = (&scenario.server, scenario.server.responder_token.clone());
    let incident = scenario.incident();
    let approval = json!({ "plan_sha256": incident["plan_sha256"], "reason": "telemetry" });
    let changed_approval = json!({ "plan_sha256": "0".repeat(64) });
    assert_eq!(scenario.decide("INC-1/approve", &scenario.server.sender_token, &approval).0, 403);
    assert_eq!(scenario.decide("INC-1/approve", "wr_unknown", &approval), (401, json!("bad_token")));
    assert_eq!(scenario.decide("INC-1/approve", &alice, &changed_approval), (409, json!("plan_changed")));
    assert_eq!(scenario.decide("INC-9/approve", &alice, &approval).0, 404);
    assert_eq!(scenario.decide("INC-1/approve", &alice, &json!({ "plan": 1 })).0, 400);
    assert_eq!(scenario.decide("INC-1/verdict", &alice, &json!({ "verdict": "perhaps" })).0, 400);
    let (status, early) = server.post_json("/api/v1/incidents/INC-1/close", &alice, &json!({})).unwrap();
    assert_eq!(
        (status, &early["detail"]),
        (409, &json!("an incident that is awaiting_approval does not allow closing"))
    );
    let long = json!({ "reason": "x".repeat(5000) });
    assert_eq!(scenario.decide("INC-1/reject", &alice, &long), (400, json!("bad_reason")));
    assert_eq!(scenario.decide("INC-1/reject", &alice, &json!({ "reason": "no" })).0, 200);
    let incident_after = scenario.wait_for_state("escalated");
    assert_eq!(incident_after["outcome"], "rejected");
    let last = incident_after["timeline"].as_array().unwrap().last().unwrap();
    assert_eq!(last["text"], "rejected by alice: no");
    let (_, again) = server.post_json("/api/v1/incidents/INC-1/reject", &alice, &json!({})).unwrap();
    assert_eq!(again["detail"], "an incident that is escalated does not allow a rejection");
    assert_eq!(scenario.decide("INC-1/approve", &alice, &approval).0, 409);
    let verdict = json!({ "verdict": "wrong_cause", "cause": "newsletter" });
    assert_eq!(scenario.decide("INC-1/verdict", &alice, &verdict).0, 200);
    assert_eq!(scenario.incident()["verdict"]["verdict"], "wrong_cause");
    close_with_the_form_and_the_command(&scenario);
    let ids: Vec<Value> = incident["evidence"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
    for cause in incident["hypotheses"].as_array().unwrap() {
        assert!(cause["evidence"].as_array().unwrap().iter().all(|id| ids.contains(id)), "{cause}");
    }
}

/// Tries the form of an escalated incident, and closes it with the command.
fn close_with_the_form_and_the_command(scenario: &Scenario) {
    let server = &scenario.server;
    let (_, page) = server.get("/incidents/INC-1", &server.responder_token).unwrap();
    assert!(page.contains("<button>Close</button>") && !page.contains("<button>Reject</button>"), "{page}");
    let fields = format!("form_token={}0&reason=x", form_field(&page, "form_token"));
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", server.url.as_str())];
    let (status, _, text) =
        server.post("/incidents/INC-1/close", &server.responder_token, &headers, fields.as_bytes()).unwrap();
    assert_eq!((status, text.contains("bad_form_token")), (403, true), "{text}");
    let credentials = ["--url", &server.url, "--token", &server.responder_token];
    let arguments = ["incidents", "close", "INC-1", "--reason", "done by hand"];
    let (code, out) = run(&[&arguments[..], &credentials[..]].concat()).unwrap();
    assert_eq!((code, out.as_str()), (Some(0), "INC-1 closed\n"));
    let (_, shown) = run(&[&["incidents", "show", "INC-1"][..], &credentials[..]].concat()).unwrap();
    assert!(shown.contains("(closed)") && shown.contains("closed by alice: done by hand"), "{shown}");
    let unknown = json!({ "reson": "x" });
    let (status, answer) =
        server.post_json("/api/v1/incidents/INC-1/close", &server.responder_token, &unknown).unwrap();
    assert_eq!((status, &answer["code"]), (409, &json!("wrong_state")), "{answer}");
}

#[test]
fn a_plan_expires_without_an_approval() {
    let scenario = with_slow_cart(&[("WARDROOM_RESPOND__APPROVAL_MINUTES", "0")], "escalated");
    let approval = json!({ "plan_sha256": scenario.incident()["plan_sha256"] });
    assert_eq!(scenario.decide("INC-1/approve", &scenario.server.responder_token, &approval), (410, json!("expired")));
    let body = json!({ "reason": "too late", "note": 1 });
    let token = &scenario.server.responder_token;
    let (status, closed) = scenario.server.post_json("/api/v1/incidents/INC-1/close", token, &body).unwrap();
    let warnings = json!(["unknown field ignored: note; known: reason"]);
    assert_eq!((status, &closed["state"], &closed["warnings"]), (200, &json!("closed"), &warnings));
}
