use axum::body::Body;
use axum::extract::Request;
use tower::ServiceExt;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{AccessRole, Principal, TenantId};
use wardroom_identity::sessions::LoginMethod;

use super::*;
use crate::{Port, Routes};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn session(secret: &str, method: LoginMethod, role: AccessRole) -> SessionRecord {
    SessionRecord {
        id: format!("id of {secret}"),
        sha256: sha256_hex(secret.as_bytes()),
        previous: None,
        csrf_token: "csrf".to_owned(),
        tenant: TenantId::main(),
        principal: Principal::new("alice").unwrap(),
        scopes: method.limit(Scopes::of_role(role)),
        method,
        created_at: NOW,
        rotated_at: NOW,
        used_at: NOW,
        ends_at: NOW.plus(Duration::from_secs(3600)),
    }
}

fn port(sessions: Vec<SessionRecord>) -> Port {
    let tokens = TokenTable::new(AuthMode::On);
    tokens.replace(Some(Vec::new()));
    let callers = Callers { sessions: SessionTable::new(Duration::from_secs(600)), ..Callers::default() };
    callers.sessions.replace(Some(sessions), NOW);
    Port { config: Arc::default(), tokens, callers, on_rejection: Arc::new(|_| {}), now: Arc::new(|| NOW) }
}

struct Answer {
    status: u16,
    code: String,
    headers: HeaderMap,
}

async fn send(port: &Port, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let routes = Routes::new()
        .get("/", Access::Read, async || "page")
        .get("/api/v1/incidents", Access::Read, async || "[]")
        .get("/api/v1/users", Access::Admin, async || "[]")
        .post("/api/v1/incidents/{id}/close", Access::Respond, async || "closed")
        .post("/incidents/{id}/close", Access::Respond, async || "closed")
        .post("/login", Access::Public, async || "in");
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = port.router(routes).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    Answer { status, code: document["code"].as_str().unwrap_or_default().to_owned(), headers }
}

const COOKIE: (&str, &str) = ("cookie", "wardroom-session=secret");
const ORIGIN: (&str, &str) = ("origin", "http://localhost:8080");
const CSRF: (&str, &str) = ("x-csrf-token", "csrf");

#[tokio::test]
async fn a_change_with_a_session_needs_a_page_of_this_server_and_the_token() {
    let port = port(vec![session("secret", LoginMethod::Passkey, AccessRole::Responder)]);
    let close = "/api/v1/incidents/INC-1/close";
    assert_eq!(send(&port, "GET", "/api/v1/incidents", &[COOKIE]).await.status, 200);
    assert_eq!(send(&port, "POST", close, &[COOKIE, ORIGIN, CSRF]).await.status, 200);
    for (headers, code) in [
        (vec![COOKIE], "wrong_origin"),
        (vec![COOKIE, CSRF], "wrong_origin"),
        (vec![COOKIE, ORIGIN], "bad_csrf_token"),
        (vec![COOKIE, ORIGIN, ("x-csrf-token", "other")], "bad_csrf_token"),
        (vec![COOKIE, ("origin", "http://evil.example"), CSRF], "wrong_origin"),
        (vec![COOKIE, ORIGIN, CSRF, ("sec-fetch-site", "cross-site")], "wrong_origin"),
    ] {
        let answer = send(&port, "POST", close, &headers).await;
        assert_eq!((answer.status, answer.code.as_str()), (403, code), "{headers:?}");
    }
    assert_eq!(
        send(&port, "POST", "/incidents/INC-1/close", &[COOKIE, ORIGIN]).await.status,
        200,
        "forms have their own"
    );
    assert_eq!(send(&port, "POST", "/login", &[("origin", "http://evil.example")]).await.code, "wrong_origin");
    assert_eq!(send(&port, "POST", "/login", &[ORIGIN]).await.status, 200);
}

#[tokio::test]
async fn what_a_session_may_do_follows_from_role_and_method() {
    for (method, role, close, users) in [
        (LoginMethod::Passkey, AccessRole::Admin, 200, 200),
        (LoginMethod::Oidc, AccessRole::Responder, 200, 403),
        (LoginMethod::Passkey, AccessRole::Viewer, 403, 403),
        (LoginMethod::Password, AccessRole::Admin, 403, 403),
    ] {
        let port = port(vec![session("secret", method, role)]);
        let headers = [COOKIE, ORIGIN, CSRF];
        assert_eq!(send(&port, "GET", "/api/v1/incidents", &headers).await.status, 200, "{method:?} {role:?}");
        assert_eq!(send(&port, "POST", "/api/v1/incidents/INC-1/close", &headers).await.status, close, "{method:?}");
        assert_eq!(send(&port, "GET", "/api/v1/users", &headers).await.status, users, "{method:?} {role:?}");
    }
}

#[tokio::test]
async fn who_has_no_session_is_sent_to_the_login_from_pages_only() {
    let port = port(Vec::new());
    let html = ("accept", "text/html,application/xhtml+xml");
    let answer = send(&port, "GET", "/?a=b", &[html]).await;
    assert_eq!((answer.status, answer.headers[header::LOCATION].to_str().unwrap()), (303, "./login?next=%2F%3Fa%3Db"));
    assert_eq!(send(&port, "GET", "/", &[html, COOKIE]).await.status, 303, "the session has ended");
    assert_eq!(send(&port, "GET", "/", &[("accept", "*/*")]).await.status, 401);
    assert_eq!(send(&port, "GET", "/", &[html, ("authorization", "Bearer wr_x")]).await.status, 401);
    assert_eq!(send(&port, "GET", "/api/v1/incidents", &[html]).await.code, "no_credential");
    assert_eq!(send(&port, "GET", "/api/v1/incidents", &[COOKIE]).await.code, "session_ended");
    port.callers.sessions.replace(None, NOW);
    assert_eq!(send(&port, "GET", "/api/v1/incidents", &[COOKIE]).await.status, 503);
}

#[tokio::test]
async fn an_old_secret_is_replaced_when_it_is_stored() {
    for stored in [true, false] {
        let old = NOW.minus(Duration::from_secs(1000));
        let aged = SessionRecord { rotated_at: old, ..session("secret", LoginMethod::Passkey, AccessRole::Viewer) };
        let mut port = port(vec![aged]);
        port.callers.store_rotation = Arc::new(move |_| Box::pin(async move { stored }));
        let answer = send(&port, "GET", "/", &[COOKIE, ("x-forwarded-proto", "https")]).await;
        let cookie = answer.headers.get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(cookie.is_some(), stored);
        let Some(cookie) = cookie else { continue };
        assert!(cookie.starts_with("__Host-wardroom-session=") && cookie.contains("; Secure"), "{cookie}");
        let new = cookie.split(';').next().unwrap();
        assert_eq!(send(&port, "GET", "/", &[("cookie", new)]).await.status, 200);
    }
}

#[test]
fn each_route_needs_one_scope() {
    let needed = |access: Access, path: &'static str| needed_scope(Route { method: "POST", path, access });
    assert_eq!(needed(Access::Public, "/login"), None);
    assert_eq!(needed(Access::Send, "/api/v1/write"), Some(Scope::TelemetryWrite));
    assert_eq!(needed(Access::Respond, "/api/v1/incidents/{id}/approve"), Some(Scope::ActionsApprove));
    assert_eq!(needed(Access::Respond, "/api/v1/incidents/{id}/reject"), Some(Scope::IncidentsWrite));
    assert_eq!(needed(Access::Admin, "/api/v1/users"), Some(Scope::ToolsManage));
    for access in [Access::Send, Access::Read, Access::Respond, Access::Admin] {
        for role in AccessRole::ALL {
            let scope = needed(access, "/x").unwrap();
            assert_eq!(Scopes::of_role(role).has(scope), access.allows(role), "{access:?} {role:?}");
        }
    }
}
