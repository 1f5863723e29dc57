//! The manners of the API: repeated requests, requests that another one overtook, limits, and live events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::Server;
use wardroom_testing::server::{create_tenant_token, create_token};

use crate::incidents::{Scenario, with_slow_cart};

fn comment(server: &Server, headers: &[(&str, &str)], text: &str) -> (u16, Value) {
    let headers: Vec<_> = [("Content-Type", "application/json")].iter().chain(headers).copied().collect();
    let body = json!({ "text": text }).to_string();
    let path = "/api/v1/incidents/INC-1/comment";
    let (status, _, text) = server.post(path, &server.responder_token, &headers, body.as_bytes()).unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

fn comments(scenario: &Scenario) -> Vec<String> {
    let incident = scenario.incident();
    let texts = incident["comments"].as_array().unwrap().iter();
    texts.map(|comment| comment["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn repeated_and_overtaken_requests_change_nothing() {
    let mut scenario = with_slow_cart(&[], "awaiting_approval");
    let key = [("Idempotency-Key", "first")];
    let (status, first) = comment(&scenario.server, &key, "pool is full");
    assert_eq!(status, 200, "{first}");
    assert_eq!(comment(&scenario.server, &key, "pool is full"), (200, first.clone()), "the answer of the first");
    assert_eq!(comment(&scenario.server, &key, "another").1["code"], "key_of_other_request");
    assert_eq!(comments(&scenario), ["pool is full"]);
    scenario.server.restart().unwrap();
    assert_eq!(comment(&scenario.server, &key, "pool is full"), (200, first), "also after a restart");
    assert_eq!(comments(&scenario), ["pool is full"]);

    let revision = scenario.incident()["revision"].as_i64().unwrap();
    let etag = format!("\"{revision}\"");
    let (status, refused) = comment(&scenario.server, &[("If-Match", "\"0\"")], "late");
    assert_eq!((status, &refused["code"]), (412, &json!("changed_since")), "{refused}");
    assert_eq!(comment(&scenario.server, &[("If-Match", "x")], "late").1["code"], "bad_if_match");
    // Detection may add to the incident at any time; then it is read again.
    let matched = (0..50).any(|_| {
        let etag = format!("\"{}\"", scenario.incident()["revision"]);
        comment(&scenario.server, &[("If-Match", &etag)], "in time").0 == 200
    });
    assert!(matched, "{etag}");
    assert_eq!(comments(&scenario), ["pool is full", "in time"]);

    let server = &scenario.server;
    let post = |what: &str, body: Value| {
        let path = format!("/api/v1/incidents/INC-1/{what}");
        let (status, answer) = server.post_json(&path, &server.responder_token, &body).unwrap();
        (status, answer["code"].clone())
    };
    assert_eq!(post("acknowledge", json!({})).0, 200);
    assert_eq!(post("assign", json!({ "owner": "bob" })).0, 200);
    assert_eq!(post("suppress", json!({ "minutes": 30, "reason": "known" })).0, 200);
    assert_eq!(post("suppress", json!({ "minutes": 99_999 })).1, "bad_minutes");
    assert_eq!(post("merge", json!({ "into": "INC-1" })).1, "bad_merge");
    assert_eq!(post("merge", json!({ "into": "INC-7" })).1, "no_such_incident");
    let incident = scenario.incident();
    assert_eq!((&incident["owner"], &incident["acknowledged_by"]), (&json!("bob"), &json!("alice")), "{incident:#}");
    let listed = |query: &str| {
        let (_, text) = server.get(&format!("/api/v1/incidents?{query}"), &server.responder_token).unwrap();
        let page: Value = serde_json::from_str(&text).unwrap();
        page["incidents"].as_array().unwrap_or_else(|| panic!("{query}: {text}")).len()
    };
    for query in ["owner=bob", "text=POOL+full", "service=cart&state=awaiting_approval", "sort=updated", "sort=oldest"]
    {
        assert!(listed(query) >= 1, "{query}");
    }
    for query in ["owner=none&text=pool", "text=database+pool", "state=closed", "since=4000000000"] {
        assert_eq!(listed(query), 0, "{query}");
    }
    let (_, text) = server.get("/api/v1/incidents/INC-1/history", &server.responder_token).unwrap();
    for part in ["\"transition\"", "acknowledged by alice", "pool is full", "assigned to bob by alice"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    people_make_incidents(&mut scenario);
}

/// Posts as `alice`; returns status and answer.
fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let headers: Vec<_> = [("Content-Type", "application/json")].iter().chain(headers).copied().collect();
    let path = format!("/api/v1/incidents{path}");
    let (status, _, text) = server.post(&path, &server.responder_token, &headers, body.to_string().as_bytes()).unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn read(server: &Server, id: &str, part: &str) -> Value {
    let (_, text) = server.get(&format!("/api/v1/incidents/{id}{part}"), &server.responder_token).unwrap();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Waits until an incident was diagnosed, and has no plan that waits for an approval.
fn wait_until_escalated(server: &Server, id: &str) {
    let started = Instant::now();
    loop {
        let incident = read(server, id, "");
        match incident["state"].as_str().unwrap_or_default() {
            "escalated" => return,
            "awaiting_approval" => drop(post(server, &format!("/{id}/reject"), &[], &json!({}))),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{incident:#}");
    }
}

fn entity_names(incident: &Value) -> Vec<&str> {
    incident["entities"].as_array().unwrap().iter().map(|entity| entity["name"].as_str().unwrap()).collect()
}

/// Opens, splits and reopens incidents; what was done survives a restart.
fn people_make_incidents(scenario: &mut Scenario) {
    let server = &mut scenario.server;
    let entities = json!(["cart", "database:orders", "unheard-of"]);
    let mut body = json!({ "title": "orders are late", "entities": entities, "description": "customers call" });
    let key = [("Idempotency-Key", "made by hand")];
    assert_eq!(post(server, "", &key, &body).0, 400, "a key has no spaces");
    let key = [("Idempotency-Key", "made")];
    let (status, created) = post(server, "", &key, &body);
    assert_eq!((status, &created["severity"]), (201, &json!("high")), "{created}");
    assert_eq!(entity_names(&created), ["cart", "orders", "unheard-of"]);
    assert_eq!(post(server, "", &key, &body).1["id"], created["id"], "the answer of the first");
    let whole = created["id"].as_str().unwrap().to_owned();
    for (field, value, code) in [
        ("title", json!(""), "bad_title"),
        ("entities", json!([]), "bad_entity"),
        ("began_at", json!("2199-01-01T00:00:00Z"), "bad_began_at"),
        ("severity", json!("loud"), "bad_body"),
        ("entity", json!("cart"), "bad_body"),
    ] {
        let mut wrong = body.clone();
        wrong[field] = value;
        assert_eq!(post(server, "", &[], &wrong).1["code"], code, "{field}");
    }
    wait_until_escalated(server, &whole);
    let detail = read(server, &whole, "");
    assert_eq!((&detail["trigger"], &detail["comments"][0]["text"]), (&json!("person"), &json!("customers call")));

    let split = |server: &Server, headers: &[(&str, &str)], entities: Value| {
        let body = json!({ "entities": entities, "reason": "another fault" });
        post(server, &format!("/{whole}/split"), headers, &body)
    };
    assert_eq!(split(server, &[("If-Match", "\"0\"")], json!(["orders"])).0, 412);
    for wrong in [json!([]), json!(["mail"]), json!(["cart", "orders", "unheard-of"])] {
        assert_eq!(split(server, &[], wrong.clone()).1["code"], "bad_split", "{wrong}");
    }
    let (status, both) = split(server, &[("Idempotency-Key", "split")], json!(["database:orders"]));
    assert_eq!(status, 201, "{both}");
    assert_eq!(entity_names(&both["incident"]), ["cart", "unheard-of"]);
    assert_eq!(entity_names(&both["created"]), ["orders"]);
    let part = both["created"]["id"].as_str().unwrap().to_owned();
    server.kill();
    server.restart().unwrap();
    assert_eq!(split(server, &[("Idempotency-Key", "split")], json!(["database:orders"])), (201, both));
    assert_eq!(read(server, &part, "")["split_from"], json!(whole));
    let history = |id: &str| read(server, id, "/history").to_string();
    let [of_whole, of_part] = [history(&whole), history(&part)];
    assert!(of_whole.contains(&format!("orders split off as {part} by alice: another fault")), "{of_whole}");
    assert!(of_whole.contains("opened by alice"), "{of_whole}");
    assert!(of_part.contains(&format!("split from {whole} by alice: another fault")), "{of_part}");

    let reopen =
        |server: &Server, id: &str| post(server, &format!("/{id}/reopen"), &[], &json!({ "reason": "it is back" }));
    assert_eq!(reopen(server, &whole).1["code"], "wrong_state", "it has not ended");
    // A later diagnosis may find a plan just before it is closed.
    while post(server, &format!("/{whole}/close"), &[], &json!({})).0 != 200 {
        wait_until_escalated(server, &whole);
    }
    assert_eq!(split(server, &[], json!(["cart"])).1["code"], "wrong_state");
    let (status, reopened) = reopen(server, &whole);
    assert_eq!((status, &reopened["state"]), (200, &json!("investigating")), "{reopened}");
    server.kill();
    server.restart().unwrap();
    wait_until_escalated(server, &whole);
    assert!(read(server, &whole, "")["timeline"].to_string().contains("reopened by alice: it is back"));

    wait_until_escalated(server, &part);
    assert_eq!(post(server, &format!("/{part}/merge"), &[], &json!({ "into": "INC-1" })).1["state"], "closed");
    let (status, merged) = reopen(server, &part);
    assert_eq!((status, &merged["code"]), (409, &json!("merged")));
    assert!(merged["detail"].as_str().unwrap().contains("INC-1"), "{merged}");

    body["title"] = json!("by a viewer");
    let viewer = create_token(&server.dir.join("data"), "vic", "viewer").unwrap();
    std::thread::sleep(Duration::from_millis(950));
    assert_eq!(server.post_json("/api/v1/incidents", &viewer, &body).unwrap().0, 403);
}

/// A stream of events, read line by line.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: &Server, token: &str) -> Self {
        let address = server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer";
        write!(stream, "{head} {token}\r\n\r\n").unwrap();
        let mut opened = Self(BufReader::new(stream));
        assert!(opened.until("retry: ").is_some());
        opened
    }

    /// Returns the next line that begins like this; `None` at the end of the stream.
    fn until(&mut self, start: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            // The last part of the body has no bytes; the connection may stay open for another request.
            if self.0.read_line(&mut line).unwrap_or(0) == 0 || line == "0\r\n" {
                return None;
            }
            if line.starts_with(start) {
                return Some(line);
            }
        }
    }
}

#[test]
fn live_events_reach_their_tenant_and_end_with_the_credential() {
    let mut scenario = with_slow_cart(&[], "awaiting_approval");
    let server = &scenario.server;
    let data = server.dir.join("data");
    let vera = create_token(&data, "vic", "viewer").unwrap();
    let other = create_tenant_token(&data, "otto", "viewer", "other").unwrap();
    std::thread::sleep(Duration::from_millis(950));
    let (mut own, mut foreign) = (Stream::open(server, &vera), Stream::open(server, &other));
    foreign.0.get_ref().set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // The task of the streams has to know where it begins.
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    assert_eq!(comment(server, &[], "pool is full").0, 200);
    let event = own.until("data: {\"id\":\"INC-1\"").expect("an event");
    let event: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&event["id"], &event["state"]), (&json!("INC-1"), &json!("awaiting_approval")));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let line = json!({ "service": "cart", "version": "v9", "status": "success" });
    assert_eq!(server.post_json("/ingest/deployment", &server.sender_token, &line).unwrap().0, 200);
    assert!(own.until("event: change").is_some());
    // Detection may infer other changes.
    while !own.until("data: ").expect("an event of the deployment").contains("v9") {}
    assert!(foreign.until("data: ").is_none(), "an event of another tenant");

    let (_, tokens) = server.run(&["token", "list", "--json", "--data", &data.display().to_string()]).unwrap();
    let tokens: Value = serde_json::from_str(&tokens).unwrap();
    let id =
        tokens["tokens"].as_array().unwrap().iter().find(|token| token["principal"] == "vic").unwrap()["id"].clone();
    let (code, _) =
        server.run(&["token", "revoke", "--data", &data.display().to_string(), id.as_str().unwrap()]).unwrap();
    let revoked = Instant::now();
    assert_eq!(code, Some(0));
    while own.until("").is_some() {}
    assert!(revoked.elapsed() < Duration::from_secs(4), "the stream of a revoked token stayed open");

    let mut open = Stream::open(&scenario.server, &scenario.server.responder_token);
    let stopping = Instant::now();
    assert_eq!(scenario.server.stop().unwrap(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(8), "an open stream delayed the stop: {:?}", stopping.elapsed());
    while open.until("").is_some() {}
}

#[test]
fn a_caller_over_the_rate_waits_and_tokens_are_managed() {
    let dir = tempfile::tempdir().unwrap();
    let limits = [("WARDROOM_EDGE__REQUESTS_PER_SECOND", "20"), ("WARDROOM_EDGE__ANONYMOUS_REQUESTS_PER_SECOND", "20")];
    let server = Server::start(dir.path(), "", &limits).unwrap();
    let admin = create_token(&dir.path().join("data"), "ada", "admin").unwrap();
    let statuses: Vec<u16> =
        (0..120).map(|_| server.get("/api/v1/whoami", &server.responder_token).unwrap().0).collect();
    assert!(statuses.contains(&429) && statuses[..30].iter().all(|status| *status == 200), "{statuses:?}");
    std::thread::sleep(Duration::from_millis(950));
    let get = |path: &str| {
        let (status, text) = server.get(path, &admin).unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text))
    };
    let unknown: Vec<_> = (0..120).map(|_| server.get("/api/v1/whoami", "wr_unknown").unwrap()).collect();
    assert_eq!(unknown[0].0, 401);
    let refused = unknown.iter().find(|(status, _)| *status == 429).expect("unknown clients are limited");
    assert!(refused.1.contains("edge.anonymous-requests-per-second"), "{}", refused.1);
    // Those with a credential are not, from the same address.
    assert_eq!(get("/api/v1/whoami")["may"], json!(["send", "read", "respond", "admin"]));
    let wanted = json!({ "principal": "bot", "role": "viewer", "expires_days": 1 });
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "t1")];
    let create = || server.post("/api/v1/tokens", &admin, &headers, wanted.to_string().as_bytes()).unwrap();
    let (status, _, text) = create();
    let created: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &created["principal"]), (201, &json!("bot")), "{text}");
    let (status, _, text) = create();
    assert!(status == 409 && text.contains("already_done"), "no second token, and the secret is not kept: {text}");
    let (id, secret) = (created["id"].as_str().unwrap(), created["token"].as_str().unwrap());
    let in_force = || server.get("/api/v1/whoami", secret).unwrap().0 == 200;
    let wait = |wanted: bool| {
        (0..40).any(|_| {
            in_force() == wanted || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        })
    };
    assert!(wait(true), "the token is not in force");
    let tokens = get("/api/v1/tokens?limit=1000");
    assert!(tokens.to_string().contains(id) && !tokens.to_string().contains(secret));
    let (status, _, text) = server.post(&format!("/api/v1/tokens/{id}/revoke"), &admin, &[], b"").unwrap();
    assert_eq!(status, 204, "{text}");
    assert!(wait(false), "the token is still in force");
    assert_eq!(server.post("/api/v1/tokens/tok_none/revoke", &admin, &[], b"").unwrap().0, 404);

    let entries = get("/api/v1/audit?action=create_token&limit=1000");
    let entry = entries["entries"].as_array().unwrap().iter().find(|row| row["entry"]["decision"]["token"] == *id);
    let entry = entry.unwrap_or_else(|| panic!("{entries:#}"));
    assert_eq!((&entry["entry"]["principal"], &entry["entry"]["decision"]["role"]), (&json!("ada"), &json!("viewer")));
    let shown = get(&format!("/api/v1/audit/{}", entry["sequence"]));
    assert_eq!(shown["hash"], entry["hash"]);
    let verified = get("/api/v1/audit/verify");
    assert_eq!(verified["ok"], true, "{verified}");
    let Value::String(export) = get("/api/v1/audit/export") else { panic!("JSON lines") };
    assert!(export.lines().count() as i64 >= verified["entries"].as_i64().unwrap(), "{export}");
    assert!(get("/api/v1/configuration")["edge"]["requests-per-second"] == 20);
    assert!(get("/api/v1/tenants").to_string().contains("main"));
    let policy = get("/api/v1/policy");
    assert!(policy["rules"].as_array().unwrap().len() > 3 && policy["text"].as_str().unwrap().contains("permit"));
    let tools = get("/api/v1/tools");
    let process = tools["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "process").unwrap();
    let (_, described) = server.run(&["tools", "describe", "process", "-o", "json"]).unwrap();
    assert_eq!(process, &serde_json::from_str::<Value>(&described).unwrap());
    assert_eq!(get("/api/v1/approvers")["approvers"][0]["principal"], "alice");
    let Value::String(page) = get("/reference") else { panic!("a page") };
    assert!(page.contains("POST /api/v1/tokens") && !page.contains("<script"));
}
