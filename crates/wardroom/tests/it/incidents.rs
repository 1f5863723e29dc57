//! One incident from the first breach to a person's yes, over HTTP and at the page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::server::create_token;
use wardroom_testing::tape::Tape;
use wardroom_testing::{Server, Shop, now_ms, wire};

struct World {
    server: Server,
    shop: Shop,
    viewer: String,
    /// Last, so that both are gone before their folder.
    _dir: tempfile::TempDir,
}

/// A server on which `cart` became slow, once its incident is in a state.
fn slow(environment: &[(&str, &str)], state: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::start(&dir.path().join("shop"), &[]).unwrap();
    let server = Server::start(dir.path(), &shop.target("cart"), environment).unwrap();
    let viewer = create_token(&dir.path().join("data"), "vera", "viewer").unwrap();
    let mut tape = Tape::new(now_ms() - 200_000, &["cart", "newsletter"]);
    let line = json!({ "level": "ERROR", "service": "cart", "message": "<script>alert(1)</script> & \"worse\"" });
    for second in 0..90 {
        let trouble: &[&str] = if second < 60 { &[] } else { &["cart"] };
        assert_eq!(server.write(&wire::body(tape.next(trouble))).unwrap(), 204);
        if second > 60 {
            let mut line = line.clone();
            line["timestamp"] = json!(Timestamp::from_millis(tape.at_ms));
            assert_eq!(server.json("/ingest/logs", &server.sender, &line).unwrap().0, 200);
        }
    }
    let world = World { server, shop, viewer, _dir: dir };
    world.until(state);
    world
}

impl World {
    fn incident(&self) -> Value {
        let (status, text) = self.server.get("/api/v1/incidents/INC-1", &self.viewer).unwrap();
        if status == 200 { serde_json::from_str(&text).unwrap() } else { Value::Null }
    }

    fn until(&self, state: &str) -> Value {
        let started = Instant::now();
        loop {
            let incident = self.incident();
            if incident["state"] == state {
                return incident;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "never {state}: {incident:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Posts a decision; status and problem code.
    fn decide(&self, what: &str, token: &str, body: &Value) -> (u16, Value) {
        let (status, answer) = self.server.json(&format!("/api/v1/incidents/{what}"), token, body).unwrap();
        (status, answer["code"].clone())
    }

    /// Presses the page's button as a browser would; status and problem code.
    fn press(&self, token: &str, origin: Option<&str>, fields: &str) -> (u16, Value) {
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        let (status, _, text) =
            self.server.post("/incidents/INC-1/approve", token, &headers, fields.as_bytes()).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, answer["code"].clone())
    }
}

fn field<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
    rest.split('"').next().unwrap()
}

#[test]
fn the_page_takes_one_yes_from_its_own_origin() {
    let world = slow(&[], "awaiting_approval");
    let server = &world.server;
    let started = Timestamp::from_millis(now_ms());
    let (_, page) = server.get("/incidents/INC-1", &server.responder).unwrap();
    assert!(page.contains("<button>Approve</button>") && page.contains("polyline"), "{page}");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "telemetry is text, not markup");
    let fields =
        format!("plan_sha256={}&form_token={}&reason=seen", field(&page, "plan_sha256"), field(&page, "form_token"));
    let own = Some(server.url.as_str());
    let forged = fields.replace("form_token=", "form_token=0");
    assert_eq!(world.press(&server.responder, None, &fields), (403, json!("wrong_origin")));
    assert_eq!(world.press(&server.responder, Some("http://evil.example"), &fields), (403, json!("wrong_origin")));
    assert_eq!(world.press(&server.responder, own, &forged), (403, json!("bad_form_token")));
    assert_eq!(world.press(&world.viewer, own, &fields).0, 403, "a viewer may look only");
    assert_eq!(world.incident()["state"], "awaiting_approval", "none of these counted");
    assert_eq!(world.press(&server.responder, own, &fields).0, 303);
    let incident = world.until("verifying");
    assert_eq!((&incident["approved_by"], &incident["execution"]), (&json!("alice"), &json!("applied")));
    assert_eq!(world.press(&server.responder, own, &fields), (409, json!("already_used")));
    let effects = world.shop.effects_since(started).unwrap();
    assert_eq!(effects, [incident["idempotency_key"].as_str().unwrap()], "one effect, under the plan's key");
}

#[test]
fn answers_to_a_plan_have_their_codes() {
    let world = slow(&[], "awaiting_approval");
    let alice = world.server.responder.clone();
    let incident = world.incident();
    let good = json!({ "plan_sha256": incident["plan_sha256"], "reason": "tape" });
    let changed = json!({ "plan_sha256": "0".repeat(64) });
    assert_eq!(world.decide("INC-1/approve", &world.server.sender, &good).0, 403);
    assert_eq!(world.decide("INC-1/approve", "wr_unknown", &good), (401, json!("bad_token")));
    assert_eq!(world.decide("INC-1/approve", &alice, &changed), (409, json!("plan_changed")));
    assert_eq!(world.decide("INC-9/approve", &alice, &good).0, 404);
    assert_eq!(world.decide("INC-1/approve", &alice, &json!({ "plan": 1 })).0, 400);
    assert_eq!(world.decide("INC-1/verdict", &alice, &json!({ "verdict": "perhaps" })).0, 400);
    assert_eq!(world.decide("INC-1/reject", &alice, &json!({ "reason": "no" })).0, 200);
    assert_eq!(world.until("escalated")["outcome"], "rejected");
    assert_eq!(world.decide("INC-1/approve", &alice, &good).0, 409);
    let verdict = json!({ "verdict": "wrong_cause", "cause": "newsletter" });
    assert_eq!(world.decide("INC-1/verdict", &alice, &verdict).0, 200);
    assert_eq!(world.incident()["verdict"]["verdict"], "wrong_cause");
    let ids: Vec<Value> = incident["evidence"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
    for cause in incident["hypotheses"].as_array().unwrap() {
        assert!(cause["evidence"].as_array().unwrap().iter().all(|id| ids.contains(id)), "{cause}");
    }
}

#[test]
fn a_plan_nobody_approved_in_time_is_gone() {
    let world = slow(&[("WARDROOM_RESPOND__APPROVAL_MINUTES", "0")], "escalated");
    let good = json!({ "plan_sha256": world.incident()["plan_sha256"] });
    assert_eq!(world.decide("INC-1/approve", &world.server.responder, &good), (410, json!("expired")));
}
