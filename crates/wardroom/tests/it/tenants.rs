//! Two tenants on one server: whatever one of them asks for, by whatever id, it sees and changes nothing of the other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::create_tenant_token;

use crate::incidents::with_slow_cart;

/// Words that only the data of the first tenant has: its services, people and incident.
const MARKERS: [&str; 6] = ["cart", "newsletter", "oracle", "alice", "vera", "INC-1"];

/// A path of the document as a request, with the other tenant's ids and parameters that select everything.
fn request_of(path: &str, dead_end: &str) -> String {
    let range = "start=1&end=4000000000";
    let all = "match%5B%5D=%7B__name__%3D~%22.%2B%22%7D";
    let query = match path {
        "/api/v1/metrics" => format!("?{all}&{range}&step=30d"),
        "/api/v1/samples" | "/api/v1/series" => format!("?{all}"),
        "/api/v1/query_exemplars" => "?query=up".to_owned(),
        "/api/v1/logs/histogram" => format!("?{range}&step=30d"),
        _ => String::new(),
    };
    let id = if path.contains("incidents") { "INC-1" } else { dead_end };
    let path = path.replace("{id}", id).replace("{name}", "correlate_error_logs");
    let path = if path.contains("/label/") { "/api/v1/label/service/values".to_owned() } else { path };
    format!("{}{query}", path.replace("{offset}", "1").replace("{sequence}", "1"))
}

/// Whether a text has a word that is not part of a longer one: schemas of tools have "several".
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|after| after.chars().next());
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

#[test]
fn a_tenant_sees_and_changes_nothing_of_another() {
    let scenario = with_slow_cart(&[], "awaiting_approval");
    let server = &scenario.server;
    let data = server.dir.join("data");
    let main = create_tenant_token(&data, "mara", "admin", "main").unwrap();
    let other = create_tenant_token(&data, "otto", "admin", "other").unwrap();
    let started = Instant::now();
    while server.get("/api/v1/whoami", &other).unwrap().0 != 200 {
        assert!(started.elapsed() < Duration::from_secs(5), "the token is not in force");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, _) = server.post_json("/api/v1/incidents/INC-1/comment", &main, &json!({ "text": "mine" })).unwrap();
    assert_eq!(status, 200);
    let (_, tokens) = server.get("/api/v1/tokens", &main).unwrap();
    let tokens: Value = serde_json::from_str(&tokens).unwrap();
    let alice = tokens["tokens"].as_array().unwrap().iter().find(|token| token["principal"] == "alice").unwrap();
    let alice = alice["id"].as_str().unwrap().to_owned();
    let before = scenario.incident();

    let (_, text) = server.get("/openapi.json", "").unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut operations: Vec<(&str, &str)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let is_open = ["public", "send"].contains(&operation["x-access"].as_str().unwrap());
            if !is_open && path != "/api/v1/stream" {
                operations.push((method.as_str(), path.as_str()));
            }
        }
    }
    // Reads first: the audit log has what the other tenant tried to change, with the ids that it named.
    operations.sort_by_key(|(method, _)| *method != "get");
    let mut shown = 0;
    for (method, path) in &operations {
        let uri = request_of(path, &alice);
        let name = format!("{method} {uri}");
        let (status, foreign) = if *method == "get" {
            let (_, own) = server.get(&uri, &main).unwrap();
            shown += u32::from(MARKERS.iter().any(|marker| own.contains(marker)));
            server.get(&uri, &other).unwrap()
        } else {
            let is_sql = *path == "/api/v1/sql";
            let (kind, body) = match *path {
                _ if is_sql => ("text/plain", "SELECT * FROM logs"),
                "/api/v1/incidents/{id}/split" => ("application/json", r#"{"entities":["cart"]}"#),
                _ => ("application/json", "{}"),
            };
            let (status, _, text) = server.post(&uri, &other, &[("Content-Type", kind)], body.as_bytes()).unwrap();
            (status, text)
        };
        let found: Vec<&str> = MARKERS.into_iter().filter(|marker| has_word(&foreign, marker)).collect();
        assert!(status >= 300 || found.is_empty(), "{name} shows {found:?}: {foreign}");
        assert!(status < 500, "{name}: {status} {foreign}");
    }
    assert!(operations.len() > 60, "{operations:?}");
    assert!(shown > 15, "the first tenant sees its data in {shown} answers");
    let after = scenario.incident();
    for field in ["state", "owner", "acknowledged_by", "comments", "verdict", "merged_into", "suppressed_until"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let made = json!({ "title": "theirs", "entities": ["cart"] });
    let (status, created) = server.post_json("/api/v1/incidents", &other, &made).unwrap();
    assert_eq!((status, &created["id"]), (201, &json!("INC-1")), "numbers are counted for each tenant");
    assert_eq!(scenario.incident()["title"], before["title"]);
    let made = json!({ "principal": "eve", "role": "admin", "tenant": "main" });
    let (status, refused) = server.post_json("/api/v1/tokens", &other, &made).unwrap();
    assert_eq!((status, &refused["code"]), (403, &json!("tenant_forbidden")));
    assert_eq!(server.get("/api/v1/whoami", &server.responder_token).unwrap().0, 200, "alice's token was not revoked");
}
