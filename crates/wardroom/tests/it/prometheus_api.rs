//! Series, labels and metadata in the API of Prometheus.

use serde_json::{Value, json};
use wardroom_testing::{Server, now_ms, remote_write};

use crate::server;

const FORM_HEADERS: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];

fn get(server: &Server, path: &str) -> (u16, Value) {
    let (status, text) = server.get(path, &server.responder_token).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

#[test]
fn series_and_labels_match_the_prometheus_api() {
    let (_dir, server) = server();
    let now = now_ms();
    let series = vec![
        remote_write::series(&[("__name__", "up"), ("job", "node"), ("env", "prod")], 1.0, now - 3_600_000),
        remote_write::series(&[("__name__", "up"), ("job", "db")], 1.0, now),
        remote_write::series(&[("__name__", "load"), ("job", "node-2")], 0.5, now),
    ];
    assert_eq!(server.write(&remote_write::body(series)).unwrap(), 204);
    for _ in 0..100 {
        if get(&server, "/api/v1/labels").1["data"].as_array().is_some_and(|names| names.len() == 3) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ok = |data: Value| (200, json!({ "status": "success", "data": data }));
    assert_eq!(get(&server, "/api/v1/labels"), ok(json!(["__name__", "env", "job"])));
    assert_eq!(get(&server, "/api/v1/label/job/values"), ok(json!(["db", "node", "node-2"])));
    assert_eq!(get(&server, "/api/v1/label/nothing/values"), ok(json!([])));
    let selectors = "match[]=up%7Bjob%3D~%22no.%2B%22%7D&match[]=load";
    let up = json!({ "__name__": "up", "env": "prod", "job": "node" });
    let load = json!({ "__name__": "load", "job": "node-2" });
    assert_eq!(get(&server, &format!("/api/v1/series?{selectors}")), ok(json!([up, load])));
    let since = (now - 60_000) / 1000;
    assert_eq!(get(&server, &format!("/api/v1/series?{selectors}&start={since}")), ok(json!([load])));
    let (status, _, text) =
        server.post("/api/v1/series", &server.responder_token, &FORM_HEADERS, selectors.as_bytes()).unwrap();
    assert_eq!((status, serde_json::from_str(&text).unwrap()), ok(json!([up, load])));
    let (_, limited) = get(&server, "/api/v1/label/job/values?limit=1");
    assert_eq!((&limited["data"], limited["warnings"].as_array().map(Vec::len)), (&json!(["db"]), Some(1)));

    let up = remote_write::Metadata { kind: 2, family: "up".into(), help: "whether it is".into(), unit: String::new() };
    assert_eq!(server.write(&remote_write::metadata_body(vec![up])).unwrap(), 204);
    let expected = ok(json!({ "up": [{ "type": "gauge", "help": "whether it is", "unit": "" }] }));
    let arrived = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        get(&server, "/api/v1/metadata?metric=up") == expected
    });
    assert!(arrived, "{:?}", get(&server, "/api/v1/metadata"));
    assert_eq!(get(&server, "/api/v1/metadata?metric=down"), ok(json!({})));

    for (path, word) in [
        ("/api/v1/series", "no match[] parameter"),
        ("/api/v1/series?match[]=%7B%7D", "matches every series"),
        ("/api/v1/labels?start=yesterday", "start"),
        ("/api/v1/labels?start=2&end=1", "before start"),
    ] {
        let (status, error) = get(&server, path);
        assert_eq!(
            (status, &error["status"], &error["errorType"]),
            (400, &json!("error"), &json!("bad_data")),
            "{path}"
        );
        assert!(error["error"].as_str().unwrap().contains(word), "{path}: {error}");
    }
    assert_eq!(server.get("/api/v1/labels", &server.sender_token).unwrap().0, 403, "a sender may not read");
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn selectors_have_re2_patterns_and_names_of_any_characters() {
    let (_dir, server) = server();
    let now = now_ms();
    let uri = |uri: &'static str| remote_write::series(&[("__name__", "m"), ("uri", uri)], 1.0, now);
    let dotted = [("__name__", "http.duration"), ("k8s.pod.name", "shop"), ("under_score", "u")];
    let series =
        vec![uri("/v1/shops/{gid}/{uid}"), uri("/v1/a.b"), uri("\u{663}"), remote_write::series(&dotted, 1.0, now)];
    assert_eq!(server.write(&remote_write::body(series)).unwrap(), 204);
    let path = format!("/api/v1/series?match[]={}", encode("{\"http.duration\"}"));
    let arrived = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        get(&server, &path).1["data"].as_array().is_some_and(|found| found.len() == 1)
    });
    assert!(arrived, "{:?}", get(&server, &path));
    for (selector, expected) in [
        (r#"m{uri=~"/v[1-9]/.*/{gid}/{uid}"}"#, vec!["/v1/shops/{gid}/{uid}"]),
        (r#"m{uri!~"/v[1-9]/.*/{gid}/{uid}"}"#, vec!["/v1/a.b", "\u{663}"]),
        (r#"m{uri=~"\\Q/v1/a.b\\E"}"#, vec!["/v1/a.b"]),
        (r#"m{uri=~"\\d"}"#, vec![]),
        (r#"m{uri=~"shops"}"#, vec![]),
    ] {
        let selector_path = format!("match[]={}", encode(selector));
        let (status, found) = get(&server, &format!("/api/v1/series?{selector_path}"));
        assert_eq!(status, 200, "{selector}: {found}");
        let mut uris: Vec<_> =
            found["data"].as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap()).collect();
        uris.sort_unstable();
        assert_eq!(uris, expected, "{selector}");
        let (status, found) = get(&server, &format!("/api/v1/samples?{selector_path}"));
        assert_eq!((status, found["series"].as_array().map(Vec::len)), (200, Some(expected.len())), "{selector}");
        let (status, found) = get(&server, &format!("/api/v1/query_exemplars?query={}", encode(selector)));
        assert_eq!((status, &found["data"]), (200, &json!([])), "{selector}");
    }
    for selector in [
        r#"{"http.duration"}"#,
        r#"{"http.duration","k8s.pod.name"="shop"}"#,
        r#"{"k8s.pod.name"=~"sh.*"}"#,
        r#"{__name__="http.duration","k8s.pod.name"!="x"}"#,
    ] {
        let (status, found) = get(&server, &format!("/api/v1/series?match[]={}", encode(selector)));
        assert_eq!((status, found["data"].as_array().map(Vec::len)), (200, Some(1)), "{selector}: {found}");
    }
    for (name, value) in
        [("k8s.pod.name", "shop"), ("U__k8s_2e_pod_2e_name", "shop"), ("U__under__score", "u"), ("under_score", "u")]
    {
        let expected = (200, json!({ "status": "success", "data": [value] }));
        assert_eq!(get(&server, &format!("/api/v1/label/{name}/values")), expected, "{name}");
    }
    for selector in ["m{uri=~\"a)|(b\"}", "m{uri=~\"a**\"}", "m{\"n\"}", "{\"a\" \"b\"}"] {
        let (status, error) = get(&server, &format!("/api/v1/series?match[]={}", encode(selector)));
        assert_eq!((status, &error["errorType"]), (400, &json!("bad_data")), "{selector}");
    }
}
