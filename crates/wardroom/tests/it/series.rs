//! Series and labels as Prometheus' clients ask for them.

use serde_json::{Value, json};
use wardroom_testing::{Server, now_ms, wire};

use crate::server;

const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];

fn get(server: &Server, path: &str) -> (u16, Value) {
    let (status, text) = server.get(path, &server.responder).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

#[test]
fn series_and_labels_answer_as_prometheus_does() {
    let (_dir, server) = server();
    let now = now_ms();
    let series = vec![
        wire::series(&[("__name__", "up"), ("job", "node"), ("env", "prod")], 1.0, now - 3_600_000),
        wire::series(&[("__name__", "up"), ("job", "db")], 1.0, now),
        wire::series(&[("__name__", "load"), ("job", "node-2")], 0.5, now),
    ];
    assert_eq!(server.write(&wire::body(series)).unwrap(), 204);
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
    let chosen = "match[]=up%7Bjob%3D~%22no.%2B%22%7D&match[]=load";
    let up = json!({ "__name__": "up", "env": "prod", "job": "node" });
    let load = json!({ "__name__": "load", "job": "node-2" });
    assert_eq!(get(&server, &format!("/api/v1/series?{chosen}")), ok(json!([up, load])));
    let since = (now - 60_000) / 1000;
    assert_eq!(get(&server, &format!("/api/v1/series?{chosen}&start={since}")), ok(json!([load])));
    let (status, _, text) = server.post("/api/v1/series", &server.responder, &FORM, chosen.as_bytes()).unwrap();
    assert_eq!((status, serde_json::from_str(&text).unwrap()), ok(json!([up, load])));
    let (_, limited) = get(&server, "/api/v1/label/job/values?limit=1");
    assert_eq!((&limited["data"], limited["warnings"].as_array().map(Vec::len)), (&json!(["db"]), Some(1)));

    let up = wire::Metadata { kind: 2, family: "up".into(), help: "whether it is".into(), unit: String::new() };
    assert_eq!(server.write(&wire::description(vec![up])).unwrap(), 204);
    let told = ok(json!({ "up": [{ "type": "gauge", "help": "whether it is", "unit": "" }] }));
    let heard = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        get(&server, "/api/v1/metadata?metric=up") == told
    });
    assert!(heard, "{:?}", get(&server, "/api/v1/metadata"));
    assert_eq!(get(&server, "/api/v1/metadata?metric=down"), ok(json!({})));

    for (path, word) in [
        ("/api/v1/series", "no match[] parameter"),
        ("/api/v1/series?match[]=%7B%7D", "match every series"),
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
    assert_eq!(server.get("/api/v1/labels", &server.sender).unwrap().0, 403, "a sender reads nothing");
}
