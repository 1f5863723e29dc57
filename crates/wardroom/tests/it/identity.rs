//! Who may enter: sessions, users, passkeys, and approvals that a passkey proves to the executor.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::credentials::WITH_CREDENTIAL;
use wardroom_testing::server::{create_token, run};
use wardroom_testing::{Authenticator, Server};

use crate::incidents::with_slow_cart;

const PUBLIC_URL: (&str, &str) = ("WARDROOM_IDENTITY__PUBLIC_URL", "https://wardroom.example");
const HOST: &str = "wardroom.example";
const PASSWORD: &str = "correct horse battery";

/// A browser: it keeps cookies, and says from which page it sends.
pub(crate) struct Browser {
    url: String,
    agent: ureq::Agent,
    cookies: Vec<(String, String)>,
    csrf: String,
}

/// What a browser was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: String,
    pub(crate) set_cookies: Vec<String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Browser {
    pub(crate) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = config.timeout_global(Some(Duration::from_secs(20))).build().new_agent();
        Self { url: url.to_owned(), agent, cookies: Vec::new(), csrf: String::new() }
    }

    fn cookie_header(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    fn answered(&mut self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let mut response = response.unwrap();
        let headers = response.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let location = text("location");
        let set_cookies: Vec<String> =
            headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        for cookie in &set_cookies {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        let status = response.status().as_u16();
        Answer { status, location, set_cookies, text: response.body_mut().read_to_string().unwrap_or_default() }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        let request = self.agent.get(url).header("Cookie", self.cookie_header()).header("Accept", "text/html");
        let response = request.call();
        self.answered(response)
    }

    pub(crate) fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.url)).header("Cookie", self.cookie_header());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send(body);
        self.answered(response)
    }

    /// As a script of a page of the server sends it.
    pub(crate) fn post_json(&mut self, path: &str, body: &Value) -> Answer {
        let (origin, csrf) = (self.url.clone(), self.csrf.clone());
        let headers = [("Origin", origin.as_str()), ("X-CSRF-Token", &csrf), ("Content-Type", "application/json")];
        self.post(path, &headers, &body.to_string())
    }

    /// As a form of a page of the server sends it.
    pub(crate) fn post_form(&mut self, path: &str, body: &str) -> Answer {
        let origin = self.url.clone();
        let headers = [("Origin", origin.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        self.post(path, &headers, body)
    }

    /// Reads the session, and keeps its CSRF token.
    pub(crate) fn session(&mut self) -> Value {
        let session = self.get("/api/v1/session").json();
        self.csrf = session["csrf_token"].as_str().unwrap_or_default().to_owned();
        session
    }

    pub(crate) fn log_in_with_token(&mut self, token: &str) {
        let answer = self.post_form("/login", &format!("token={token}"));
        assert_eq!((answer.status, answer.location.as_str()), (303, "./"), "{}", answer.text);
        self.session();
    }

    fn register(&mut self, authenticator: &mut Authenticator) -> Value {
        let challenge = self.post_json("/api/v1/passkeys/options", &json!({})).json()["challenge"].clone();
        authenticator.kind = "webauthn.create".to_owned();
        let (client_data, attestation) = authenticator.register(challenge.as_str().unwrap(), WITH_CREDENTIAL);
        let body = json!({ "name": "laptop", "client_data": client_data, "attestation_object": attestation });
        let answer = self.post_json("/api/v1/passkeys", &body);
        assert_eq!(answer.status, 201, "{}", answer.text);
        (authenticator.kind, authenticator.count) = ("webauthn.get".to_owned(), authenticator.count + 1);
        answer.json()
    }

    fn log_in_with_passkey(&mut self, authenticator: &mut Authenticator) -> Answer {
        let challenge = self.post_json("/api/v1/session/passkey-options", &json!({})).json()["challenge"].clone();
        let assertion = authenticator.assert(challenge.as_str().unwrap());
        authenticator.count += 1;
        self.post_json("/api/v1/session/passkey", &json!(assertion))
    }
}

fn start(environment: &[(&str, &str)]) -> (tempfile::TempDir, Server, String) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", environment).unwrap();
    let admin = create_token(&dir.path().join("data"), "ada", "admin").unwrap();
    wait_for(|| server.get("/api/v1/users", &admin).unwrap().0 == 200);
    (dir, server, admin)
}

pub(crate) fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition does not become true");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn audit_entries(data: &Path) -> Vec<Value> {
    let data = data.display().to_string();
    let (code, text) = run(&["audit", "list", "--json", "--limit", "1000", "--data", &data]).unwrap();
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["entries"].as_array().unwrap().clone()
}

fn create_user(server: &Server, admin: &str, user: &Value) {
    let (status, answer) = server.post_json("/api/v1/users", admin, user).unwrap();
    assert_eq!(status, 201, "{answer}");
}

#[test]
fn a_user_reads_with_a_password_and_is_out_within_a_second() {
    let (dir, server, admin) = start(&[]);
    create_user(&server, &admin, &json!({ "principal": "vera", "role": "responder", "password": PASSWORD }));
    let short = json!({ "principal": "x", "role": "viewer", "password": "short" });
    assert_eq!(server.post_json("/api/v1/users", &admin, &short).unwrap().1["code"], "bad_password");
    let twice = json!({ "principal": "vera", "role": "viewer" });
    assert_eq!(server.post_json("/api/v1/users", &admin, &twice).unwrap().0, 409);
    let mut browser = Browser::new(&server.url);
    let to_login = browser.get("/incidents/INC-1");
    assert_eq!((to_login.status, to_login.location.as_str()), (303, "../login?next=%2Fincidents%2FINC-1"));
    assert!(browser.get("/login").text.contains("Log in for reading"));
    assert_eq!(browser.post_form("/login", "principal=vera&password=wrong").status, 401);
    let answer = browser.post_form("/login", "principal=vera&password=correct%20horse%20battery&next=%2Faccount");
    assert_eq!((answer.status, answer.location.as_str()), (303, "./account"));
    let cookie = &answer.set_cookies[0];
    assert!(cookie.starts_with("wardroom-session=") && cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
    let session = browser.session();
    assert_eq!((&session["principal"], &session["method"]), (&json!("vera"), &json!("password")));
    assert_eq!(session["scopes"], "incidents:read", "a password is for reading, whatever the role");
    assert_eq!(session["approval"]["may_approve"], false);
    assert!(session["approval"]["reason"].as_str().unwrap().contains("password"), "{session}");
    assert_eq!(browser.get("/api/v1/incidents").status, 200);
    let close = browser.post_json("/api/v1/incidents/INC-1/close", &json!({}));
    assert_eq!((close.status, close.code()), (403, "role_forbidden".to_owned()));
    assert_eq!(browser.post_json("/api/v1/passkeys/options", &json!({})).code(), "weak_login");
    // Changed from elsewhere: the role, and that they may enter.
    let started = Instant::now();
    let disable = json!({ "enabled": false });
    assert_eq!(server.post_json("/api/v1/users/vera", &admin, &disable).unwrap().0, 200);
    while browser.get("/api/v1/incidents").status == 200 {
        assert!(started.elapsed() < Duration::from_secs(1), "the session is still in force");
    }
    assert_eq!(browser.post_form("/login", "principal=vera&password=correct%20horse%20battery").status, 401);
    let entries = audit_entries(&dir.path().join("data"));
    for action in ["create_user", "login", "login_refused", "change_user"] {
        assert!(entries.iter().any(|entry| entry["action"] == action), "{action}: {entries:#?}");
    }
    assert!(!json!(entries).to_string().contains("horse"), "no password in the audit log");
    assert_eq!(server.get("/api/v1/users", &server.responder_token).unwrap().0, 403);
}

#[test]
fn logins_that_fail_again_and_again_have_to_wait() {
    let (_dir, server, _) = start(&[]);
    let mut browser = Browser::new(&server.url);
    let statuses: Vec<u16> =
        (0..7).map(|_| browser.post_form("/login", "principal=vera&password=wrong").status).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    assert!(browser.post_form("/login", "principal=vera&password=wrong").text.contains("too many logins"));
}

#[test]
fn a_session_of_a_token_ends_with_it_and_every_change_needs_its_page() {
    let (dir, server, admin) = start(&[]);
    let mut browser = Browser::new(&server.url);
    browser.log_in_with_token(&admin);
    let user = json!({ "principal": "vera", "role": "viewer" }).to_string();
    let (origin, csrf) = (server.url.clone(), browser.csrf.clone());
    for (headers, code) in [
        (vec![], "wrong_origin"),
        (vec![("X-CSRF-Token", csrf.as_str())], "wrong_origin"),
        (vec![("Origin", origin.as_str())], "bad_csrf_token"),
        (vec![("Origin", origin.as_str()), ("X-CSRF-Token", "x")], "bad_csrf_token"),
        (vec![("Origin", "http://evil.example"), ("X-CSRF-Token", csrf.as_str())], "wrong_origin"),
    ] {
        assert_eq!(browser.post("/api/v1/users", &headers, &user).code(), code, "{headers:?}");
    }
    let evil = [("Origin", "http://evil.example")];
    let (_, _, text) = server.post("/api/v1/users", &admin, &evil, user.as_bytes()).unwrap();
    assert!(text.contains("wrong_origin"), "a bearer token from a page of another origin: {text}");
    assert_eq!(browser.post_json("/api/v1/users", &serde_json::from_str(&user).unwrap()).status, 201);
    let data = dir.path().join("data").display().to_string();
    let (_, text) = server.run(&["token", "list", "--json", "--data", &data]).unwrap();
    let tokens: Value = serde_json::from_str(&text).unwrap();
    let id = tokens["tokens"].as_array().unwrap().iter().find(|token| token["principal"] == "ada").unwrap();
    let (code, _) = server.run(&["token", "revoke", id["id"].as_str().unwrap(), "--data", &data]).unwrap();
    assert_eq!(code, Some(0));
    let started = Instant::now();
    while browser.get("/api/v1/incidents").status == 200 {
        assert!(started.elapsed() < Duration::from_secs(2), "the session outlives its token");
    }
    browser.log_in_with_token(&server.responder_token);
    assert_eq!(browser.post_form("/logout", "").location, "./login");
    assert!(browser.cookies.is_empty());
}

#[test]
fn a_passkey_logs_in_and_approves_a_plan_to_the_executor() {
    let scenario = with_slow_cart(&[PUBLIC_URL], "awaiting_approval");
    let (server, data) = (&scenario.server, scenario.server.dir.join("data"));
    let admin = create_token(&data, "ada", "admin").unwrap();
    wait_for(|| server.get("/api/v1/users", &admin).unwrap().0 == 200);
    create_user(server, &admin, &json!({ "principal": "alice", "role": "responder" }));
    let mut authenticator = Authenticator::new(HOST);
    let mut browser = Browser::new(&server.url);
    browser.log_in_with_token(&server.responder_token);
    let passkey = browser.register(&mut authenticator);
    let mut browser = Browser::new(&server.url);
    let answer = browser.log_in_with_passkey(&mut authenticator);
    assert_eq!(answer.status, 204, "{}", answer.text);
    assert!(answer.set_cookies[0].contains("__Host-wardroom-session=") && answer.set_cookies[0].contains("; Secure"));
    let session = browser.session();
    assert_eq!((&session["method"], &session["role"]), (&json!("passkey"), &json!("responder")));
    // Listed with a token only: a passkey of theirs proves nothing yet.
    assert_eq!(session["approval"]["proofs"], json!(["token"]));
    let yaml = std::fs::read_to_string(&server.executor_config).unwrap();
    let (_, targets) = yaml.split_once("targets:").unwrap();
    let line = passkey["approver_line"].as_str().unwrap();
    let browser_proofs = format!("browser:\n  rp-id: {HOST}\n  origins: ['https://{HOST}']\n");
    let approvers = format!("approvers:\n  - tenant: main\n    passkeys: |\n      {line}\n");
    std::fs::write(&server.executor_config, format!("{approvers}{browser_proofs}targets:{targets}")).unwrap();
    let request = browser.get("/api/v1/incidents/INC-1/approval-request").json();
    assert_eq!(request["approval"]["passkeys"], json!([authenticator.id()]), "{request}");
    assert_eq!(request["approval"]["rp_id"], HOST);
    let page = browser.get("/incidents/INC-1").text;
    assert!(page.contains("passkey-approve") && page.contains("src=\"../assets/access.js\""), "{page}");
    let (plan, challenge) = (request["plan_sha256"].clone(), request["challenge"].as_str().unwrap().to_owned());
    let mut approve = |challenge: &str, time: &Value| {
        let proof = json!({ "time": time, "passkey": authenticator.assert(challenge) });
        let body = json!({ "plan_sha256": plan, "proof": proof, "channel": "page" });
        let answer = browser.post_json("/api/v1/incidents/INC-1/approve", &body);
        (answer.status, answer.code())
    };
    // What a server that is taken over could ask a person to sign: another plan's challenge, or a login's.
    assert_eq!(approve("bG9naW4", &request["time"]), (403, "invalid_proof".to_owned()));
    assert_eq!(approve(&challenge, &json!("2020-01-01T00:00:00Z")), (403, "invalid_proof".to_owned()));
    assert_eq!(approve(&challenge, &request["time"]), (202, String::new()));
    assert_eq!(approve(&challenge, &request["time"]).0, 409, "repeated");
    wait_for(|| scenario.incident()["execution"] == "applied");
    let incident = scenario.incident();
    assert_eq!((&incident["approved_by"], &incident["approval"]["proof"]), (&json!("alice"), &json!("passkey")));
    let entries = audit_entries(&data);
    let refused = entries.iter().filter(|entry| entry["action"] == "approve_refused").count();
    assert!(refused >= 2, "{entries:#?}");
}
