//! Logins and approvals by a real provider of OpenID Connect, npm's `oidc-provider`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{Server, program};

use crate::identity::{Browser, wait_for};
use crate::incidents::{Scenario, with_slow_cart};

/// The provider; ended when dropped.
struct Provider {
    child: Child,
    issuer: String,
    /// Kept open: the provider writes notices to it.
    _output: BufReader<ChildStdout>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Provider {
    fn start(dir: &Path, port: u16, wardroom: &str) -> Self {
        // Node finds packages beside the script.
        std::fs::write(dir.join("oidc.mjs"), include_str!("clients/oidc.mjs")).unwrap();
        let modules = dir.join("node_modules");
        if !modules.exists() {
            std::os::unix::fs::symlink(program("CLIENT_NODE").join("node_modules"), modules).unwrap();
        }
        let log = std::fs::File::create(dir.join("oidc.log")).unwrap();
        let mut child = Command::new("node")
            .args(["oidc.mjs", &port.to_string(), wardroom])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "{}", std::fs::read_to_string(dir.join("oidc.log")).unwrap());
        Self { child, issuer: format!("http://127.0.0.1:{port}"), _output: output }
    }
}

/// Follows the redirects between this server and the provider, as a browser does. Returns the status of the page at the
/// end, and its text.
fn follow(browser: &mut Browser, server: &Server, mut url: String) -> (u16, String) {
    for _ in 0..12 {
        let answer = browser.get(&url);
        if ![302, 303].contains(&answer.status) {
            return (answer.status, answer.text);
        }
        url = resolve(&url, &answer.location, &server.url);
    }
    panic!("the redirects do not end: {url}");
}

/// Resolves a location against the URL of the page.
fn resolve(page: &str, location: &str, server: &str) -> String {
    if location.starts_with("http") {
        return location.to_owned();
    }
    let page = if page.starts_with("http") { page.to_owned() } else { format!("{server}{page}") };
    let (scheme, rest) = page.split_once("://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let (origin, path) = (format!("{scheme}://{host}"), format!("/{path}"));
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    let path = path.split('?').next().unwrap();
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in location.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("{origin}{}", parts.join("/"))
}

/// The scenario with a provider: its settings need the address of this server, which is known once it has started.
fn with_provider() -> (Scenario, Provider) {
    let mut scenario = with_slow_cart(&[], "awaiting_approval");
    let port = free_port();
    let url = scenario.server.url.clone();
    let provider = Provider::start(&scenario.server.dir, port, &url);
    let settings = format!(
        "[{{name=corp,issuer=\"{}\",client-id=wardroom,client-secret=\"env:OIDC_SECRET\",\
         approval-client-id=wardroom-approvals,principal-claim=preferred_username,roles={{sre=responder}}}}]",
        provider.issuer
    );
    for (name, value) in [
        ("WARDROOM_IDENTITY__PUBLIC_URL", url.as_str()),
        ("WARDROOM_IDENTITY__PROVIDERS", &settings),
        ("OIDC_SECRET", "s3cret-of-the-client"),
    ] {
        scenario.server.set_environment(name, value);
    }
    let yaml = std::fs::read_to_string(&scenario.server.executor_config).unwrap();
    let (_, targets) = yaml.split_once("targets:").unwrap();
    let approvers = format!("approvers:\n  - tenant: main\n    accounts: alice {} 0001\n", provider.issuer);
    let issuers = format!("    - issuer: {}\n      client-id: wardroom-approvals\n", provider.issuer);
    let text = format!("{approvers}browser:\n  issuers:\n{issuers}targets:{targets}");
    std::fs::write(&scenario.server.executor_config, text).unwrap();
    scenario.server.restart().unwrap();
    (scenario, provider)
}

#[test]
fn a_person_logs_in_and_approves_by_their_provider() {
    let (scenario, provider) = with_provider();
    let server = &scenario.server;
    let mut browser = Browser::new(&server.url);
    assert!(browser.get("/login").text.contains("Log in with corp"));
    let (status, page) = follow(&mut browser, server, "/auth/oidc/corp/start?next=%2Fincidents%2FINC-1".to_owned());
    assert_eq!(status, 200, "{page}");
    let session = browser.session();
    assert_eq!((&session["principal"], &session["method"]), (&json!("alice"), &json!("oidc")));
    assert_eq!(session["role"], "responder", "by the group sre");
    // The executor reads its file when it is asked.
    let deadline = Instant::now() + Duration::from_secs(10);
    while browser.session()["approval"]["may_approve"] != true {
        assert!(Instant::now() < deadline, "{}", browser.session());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (_, page) = follow(&mut browser, server, "/incidents/INC-1".to_owned());
    assert!(page.contains("Approve with corp"), "{page}");
    // An answer to nothing that this browser has begun.
    let forged = browser.get("/auth/oidc/corp/callback?code=x&state=y");
    assert_eq!((forged.status, &forged.json()["code"]), (400, &json!("login_refused")));
    let request = browser.get("/api/v1/incidents/INC-1/approval-request").json();
    let plan = request["plan_sha256"].as_str().unwrap().to_owned();
    // A nonce of the server's choice: a token of a login proves no approval.
    let stolen = json!({ "time": request["time"], "id_token": "eyJhbGciOiJub25lIn0.e30." });
    let body = json!({ "plan_sha256": plan, "proof": stolen });
    assert_eq!(browser.post_json("/api/v1/incidents/INC-1/approve", &body).status, 403);
    let start = format!("/auth/oidc/corp/approve?incident=INC-1&plan_sha256={plan}&reason=cart%20is%20slow");
    let other = start.replace(&plan, &"0".repeat(64));
    assert_eq!(browser.get(&other).json()["code"], "plan_changed");
    let (status, page) = follow(&mut browser, server, start.clone());
    assert_eq!(status, 200, "{page}");
    wait_for(|| scenario.incident()["execution"] == "applied");
    let approval: Value = scenario.incident()["approval"].clone();
    assert_eq!((&approval["by"], &approval["proof"]), (&json!("alice"), &json!("oidc")));
    assert_eq!(approval["reason"], "cart is slow");
    // Again: the executor has used this plan.
    let (status, text) = follow(&mut browser, server, start);
    assert_eq!(status, 409, "{text}");
    drop(provider);
}
