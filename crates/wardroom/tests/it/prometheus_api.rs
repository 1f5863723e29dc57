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
