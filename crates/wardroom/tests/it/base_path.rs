//! Below a path of a real nginx, which removes the path or does not.

use serde_json::Value;
use wardroom_testing::{NginxServer, Server};

/// Settings of a proxy that says who its client is.
const FORWARDED: &str = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;";

#[test]
fn pages_forms_and_the_api_work_below_a_path_of_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = [("WARDROOM_EDGE__BASE_PATH", "/wardroom"), ("WARDROOM_EDGE__TRUSTED_PROXIES", "[\"127.0.0.1\"]")];
    let mut server = Server::start(&dir.path().join("trusted"), "", &trusted).unwrap();
    let direct = server.url.clone();
    // With a path after the address nginx replaces the location's by it; without one it passes all on.
    for (name, target) in [("removed", format!("{direct}/")), ("kept", direct.clone())] {
        let directives = format!("location /wardroom/ {{ proxy_pass {target};\n    {FORWARDED} }}");
        let nginx = NginxServer::start(&dir.path().join(name), &directives).unwrap();
        let origin = format!("http://127.0.0.1:{}", nginx.port);
        server.url = format!("{origin}/wardroom");
        let (status, page) = server.get("/", &server.responder_token).unwrap();
        assert!(status == 200 && page.contains("No incidents."), "{name}: {status} {page}");
        assert!(!page.contains("href=\"/") && !page.contains("action=\"/"), "{name}: a link leaves the path: {page}");
        let (status, text) = server.get("/openapi.json", "").unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &document["servers"][0]["url"]), (200, &Value::from(".")), "{name}");
        assert_eq!(server.get("/reference", "").unwrap().0, 200, "{name}");
        let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", origin.as_str())];
        let body = b"form_token=x&reason=y";
        let (_, _, text) = server.post("/incidents/INC-1/close", &server.responder_token, &form, body).unwrap();
        assert!(text.contains("bad_form_token"), "{name}: the page's own origin is refused: {text}");
        let evil = [form[0], ("Origin", "http://evil.example")];
        let (_, _, text) = server.post("/incidents/INC-1/close", &server.responder_token, &evil, body).unwrap();
        assert!(text.contains("wrong_origin"), "{name}: {text}");
        server.url.clone_from(&direct);
        assert_eq!(server.get("/api/v1/incidents", &server.responder_token).unwrap().0, 200, "without a proxy");
    }
}

#[test]
fn a_proxy_that_is_not_named_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [("WARDROOM_EDGE__BASE_PATH", "/wardroom")];
    let mut server = Server::start(&dir.path().join("server"), "", &environment).unwrap();
    let directives = format!("location /wardroom/ {{ proxy_pass {};\n    {FORWARDED} }}", server.url);
    let nginx = NginxServer::start(&dir.path().join("nginx"), &directives).unwrap();
    let origin = format!("http://127.0.0.1:{}", nginx.port);
    server.url = format!("{origin}/wardroom");
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", origin.as_str())];
    let (_, _, text) = server.post("/incidents/INC-1/close", &server.responder_token, &form, b"form_token=x").unwrap();
    assert!(text.contains("wrong_origin"), "the origin counts only as the name of this server: {text}");
    assert_eq!(server.get("/api/v1/incidents", &server.responder_token).unwrap().0, 200);
}
