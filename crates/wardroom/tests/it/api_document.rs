//! The API held against its own OpenAPI document by tools that others wrote: schemathesis, and clients that are
//! generated from it. `clients/README.md` says how users generate the same ones.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use wardroom_testing::Server;
use wardroom_testing::server::{create_tenant_token, create_token, program};

use crate::identity::wait_for;
use crate::incidents::with_slow_cart;

/// No limit of requests: the tools send as fast as they can.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("WARDROOM_EDGE__REQUESTS_PER_SECOND", "0"),
    ("WARDROOM_EDGE__ANONYMOUS_REQUESTS_PER_SECOND", "0"),
    ("WARDROOM_LAKE__FLUSH_SECONDS", "1"),
];

/// Python with the pinned packages, and with those of the folder that it runs in.
fn python(dir: &Path) -> Command {
    let mut python = Command::new(program("CLIENT_PYTHON"));
    let modules = format!("{}:{}", program("API_PYTHON_SITE").display(), dir.display());
    python.env("PYTHONHOME", program("CLIENT_PYTHON_HOME")).env("PYTHONPATH", modules);
    python.env("LD_LIBRARY_PATH", program("CLIENT_LIBRARIES")).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(dir);
    python
}

/// Runs a command to its end, and returns what it printed.
fn run(what: &str, command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{what}: {}\n{printed}\n{}", output.status, text(&output.stderr));
    printed
}

/// Writes the server's document into a new folder beside its data.
fn folder_with_document(server: &Server, name: &str) -> std::path::PathBuf {
    let dir = server.dir.join(name);
    std::fs::create_dir(&dir).unwrap();
    let (status, document) = server.get("/openapi.json", "").unwrap();
    assert_eq!(status, 200);
    std::fs::write(dir.join("openapi.json"), document).unwrap();
    dir
}

#[test]
fn a_typescript_client_works_an_incident_through() {
    let scenario = with_slow_cart(&ENVIRONMENT, "awaiting_approval");
    let server = &scenario.server;
    let dir = folder_with_document(server, "typescript");
    for (name, text) in [
        ("package.json", include_str!("../../../../clients/typescript/package.json")),
        ("tsconfig.json", include_str!("../../../../clients/typescript/tsconfig.json")),
        ("walk.ts", include_str!("../../../../clients/typescript/walk.ts")),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    // Node finds packages beside the script.
    std::os::unix::fs::symlink(program("API_NODE").join("node_modules"), dir.join("node_modules")).unwrap();
    let node = |what: &str, arguments: &[&str]| run(what, Command::new("node").args(arguments).current_dir(&dir));
    node("openapi-typescript", &["node_modules/openapi-typescript/bin/cli.js", "openapi.json", "--output", "api.d.ts"]);
    node("tsc --strict", &["node_modules/typescript/bin/tsc", "--project", "tsconfig.json"]);
    let walked = node("the client", &["out/walk.js", &server.url, &server.responder_token, "INC-1"]);
    assert!(walked.contains("entries of history"), "{walked}");
    let incident = scenario.incident();
    assert_eq!((&incident["execution"], &incident["approved_by"]), (&json!("applied"), &json!("alice")));
    assert_eq!(incident["approval"]["reason"], "seen from TypeScript");
}

#[test]
fn a_python_client_works_an_incident_through() {
    let scenario = with_slow_cart(&ENVIRONMENT, "awaiting_approval");
    let server = &scenario.server;
    let dir = folder_with_document(server, "python");
    for (name, text) in [
        ("generator.yaml", include_str!("../../../../clients/python/generator.yaml")),
        ("walk.py", include_str!("../../../../clients/python/walk.py")),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let generate = ["-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "generator.yaml"];
    // A warning says that a part of the document was left out.
    let output = ["--output-path", "wardroom_client", "--meta", "none", "--fail-on-warning"];
    run("openapi-python-client", python(&dir).args(generate).args(output));
    let walked = run("the client", python(&dir).args(["walk.py", &server.url, &server.responder_token, "INC-1"]));
    assert!(walked.contains("entries of history"), "{walked}");
    let incident = scenario.incident();
    assert_eq!((&incident["state"], &incident["outcome"]), (&json!("closed"), &json!("rejected")));
}

/// Who sends schemathesis' requests.
struct Sender<'a> {
    name: &'a str,
    /// An administrator's token; `None` for requests without a credential.
    token: Option<&'a str>,
    /// Id of a token that may be revoked.
    spare: String,
}

impl Sender<'_> {
    /// Has schemathesis send its requests; every answer must be as documented.
    fn send(&self, server: &Server, arguments: &[&str]) {
        let dir = folder_with_document(server, self.name);
        for (name, text) in [
            ("schemathesis.toml", include_str!("../../../../clients/schemathesis/schemathesis.toml")),
            ("hooks.py", include_str!("../../../../clients/schemathesis/hooks.py")),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let mut schemathesis = python(&dir);
        schemathesis.args(["-m", "schemathesis.cli", "--no-color", "run", "openapi.json", "--url", &server.url]);
        schemathesis.args(["--seed", "1"]).args(arguments);
        schemathesis.env("WARDROOM_SPARE_TOKEN", &self.spare).env("WARDROOM_INCIDENT", "INC-1");
        if let Some(token) = self.token {
            schemathesis.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        let report = run(&format!("schemathesis, {}", self.name), &mut schemathesis);
        assert!(report.contains("Tested"), "no operation was tried: {report}");
        if let Some(token) = self.token {
            assert_eq!(server.get("/api/v1/whoami", token).unwrap().0, 200, "the token is no longer valid");
        }
    }
}

/// Sends requests as an administrator, without a credential and, in the long form, as an administrator of another
/// tenant.
fn send_from_all(arguments: &[&str], is_long: bool) {
    let mut scenario = with_slow_cart(&ENVIRONMENT, "awaiting_approval");
    let data = scenario.server.dir.join("data");
    let (admin, other) =
        (create_token(&data, "ada", "admin").unwrap(), create_tenant_token(&data, "otto", "admin", "other").unwrap());
    let server = &scenario.server;
    wait_for(|| server.get("/api/v1/whoami", &other).unwrap().0 == 200);
    let spare = |token: &str, principal: &str| {
        let body = json!({ "principal": principal, "role": "viewer" });
        let (status, created) = server.post_json("/api/v1/tokens", token, &body).unwrap();
        assert_eq!(status, 201, "{created}");
        created["id"].as_str().unwrap().to_owned()
    };
    Sender { name: "main", token: Some(&admin), spare: spare(&admin, "spare") }.send(server, arguments);
    if is_long {
        Sender { name: "other", token: Some(&other), spare: spare(&other, "spare") }.send(server, arguments);
    }
    let arguments = if is_long { arguments } else { &["--phases", "fuzzing", "--max-examples", "1"] };
    Sender { name: "none", token: None, spare: "tok_none".to_owned() }.send(server, arguments);
    let (status, ready) = server.get("/healthz", "").unwrap();
    assert_eq!(status, 200, "{ready}");
    let verified: Value = serde_json::from_str(&server.get("/api/v1/audit/verify", &admin).unwrap().1).unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
    let log = std::fs::read_to_string(server.dir.join("wardroom.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!scenario.server.has_exited());
}

#[test]
fn schemathesis_finds_no_answer_that_is_not_documented() {
    send_from_all(&["--phases", "examples,fuzzing", "--max-examples", "2"], false);
}

#[test]
#[ignore = "cargo xtask test-api --long runs it: it takes minutes"]
fn schemathesis_finds_nothing_in_all_its_phases() {
    send_from_all(&["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "60"], true);
}
