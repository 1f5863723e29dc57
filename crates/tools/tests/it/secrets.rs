//! Credentials by reference, against servers with Vault's and Secret Manager's HTTP API; and no credential in any
//! output.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use wardroom_respond::{Run, ToolError};
use wardroom_tools::http_client::HttpClient;
use wardroom_tools::{Context, Secret, Secrets, SecretsConfig, shown};

use super::little_server::{LittleServer, Received, Reply};
use super::{call, local_programs, read_targets, tool_with};

fn secrets(config: Value) -> Secrets {
    let config: SecretsConfig = serde_json::from_value(config).unwrap();
    config.check().unwrap();
    Secrets::new(config, HttpClient::new())
}

fn resolve(secrets: &Secrets, reference: &str) -> Result<String, ToolError> {
    secrets.resolve(&Secret::new(reference)).map(|value| value.as_str().to_owned())
}

/// Answers as Vault does (`/v1/…`, key-value engine in both versions, AppRole), with a secret that is rotated.
fn vault(password: Arc<Mutex<String>>) -> LittleServer {
    LittleServer::start(move |request: &Received| -> Reply {
        let reply = |status: u16, body: Value| (status, String::new(), body.to_string());
        let errors = |status: u16, text: &str| reply(status, json!({ "errors": [text] }));
        if (request.method.as_str(), request.target.as_str()) == ("POST", "/v1/auth/approle/login") {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            return match (body["role_id"].as_str(), body["secret_id"].as_str()) {
                (Some("the-role"), Some("the-secret")) => {
                    reply(200, json!({ "auth": { "client_token": "hvs.CANARY" } }))
                }
                _ => errors(400, "invalid role or secret ID"),
            };
        }
        if request.header("x-vault-token") != Some("hvs.CANARY") || request.header("x-vault-request") != Some("true") {
            return errors(403, "permission denied");
        }
        let password = password.lock().unwrap().clone();
        match request.target.as_str() {
            "/v1/secret/data/redis" => reply(
                200,
                json!({ "data": { "data": { "password": password, "port": 6379 }, "metadata": { "version": 2 } } }),
            ),
            "/v1/kv/redis" => reply(200, json!({ "data": { "password": password } })),
            "/v1/secret/data/denied" => errors(403, "permission denied"),
            "/v1/sealed" => errors(503, "Vault is sealed"),
            _ => reply(404, json!({ "errors": [] })),
        }
    })
}

#[test]
fn vault_is_read_at_every_use_with_a_token_or_an_app_role() {
    let password = Arc::new(Mutex::new("CANARY-one".to_owned()));
    let server = vault(Arc::clone(&password));
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "hvs.CANARY\n").unwrap();
    let login_by_token = json!({ "token": format!("file:{}", token.display()) });
    let login_by_role = json!({ "app-role": { "role-id": "the-role", "secret-id": "the-secret" } });
    for login in [login_by_token, login_by_role] {
        let secrets = secrets(json!({ "vault": { "address": server.url(), "login": login } }));
        for value in ["CANARY-one", "CANARY-rotated"] {
            *password.lock().unwrap() = value.to_owned();
            assert_eq!(resolve(&secrets, "vault:secret/data/redis#password").unwrap(), value);
            assert_eq!(resolve(&secrets, "vault:kv/redis#password").unwrap(), value, "version 1 of the engine");
        }
        assert_eq!(resolve(&secrets, "vault:secret/data/redis#port").unwrap(), "6379");
        assert!(secrets.known().contains(&"hvs.CANARY".to_owned()), "the token is cut out of outputs, too");
        for (reference, expected) in [
            ("vault:secret/data/redis#user", "no such field"),
            ("vault:secret/data/denied#a", "permission denied"),
            ("vault:secret/redis#a", "not found"),
        ] {
            let error = resolve(&secrets, reference).unwrap_err();
            assert!(matches!(&error, ToolError::Invalid(text) if text.contains(expected)), "{reference}: {error}");
            assert!(!error.to_string().contains("CANARY"));
        }
        assert!(matches!(resolve(&secrets, "vault:sealed#a"), Err(ToolError::Unavailable(_))), "it may be unsealed");
    }
    let wrong = secrets(json!({ "vault": { "address": server.url(), "login": { "token": "wrong" } } }));
    assert!(matches!(resolve(&wrong, "vault:kv/redis#password"), Err(ToolError::Invalid(_))));
    let none = secrets(json!({}));
    assert!(
        matches!(resolve(&none, "vault:kv/redis#password"), Err(ToolError::Invalid(text)) if text.contains("secrets.vault"))
    );
}

#[test]
fn secret_manager_is_read_with_an_access_token() {
    let data = base64::engine::general_purpose::STANDARD.encode("CANARY-gcp");
    let server = LittleServer::start(move |request| {
        let is_allowed = request.header("authorization") == Some("Bearer ya29.CANARY");
        match request.target.as_str() {
            _ if !is_allowed => (401, String::new(), "{}".into()),
            "/v1/projects/p/secrets/db/versions/latest:access" => {
                (200, String::new(), json!({ "name": "n", "payload": { "data": data } }).to_string())
            }
            _ => (404, String::new(), "{}".into()),
        }
    });
    let secrets = secrets(json!({ "gcp": { "endpoint": server.url(), "access-token": "ya29.CANARY" } }));
    assert_eq!(resolve(&secrets, "gcp-secret:projects/p/secrets/db/versions/latest").unwrap(), "CANARY-gcp");
    let missing = resolve(&secrets, "gcp-secret:projects/p/secrets/other/versions/1").unwrap_err();
    assert!(matches!(&missing, ToolError::Invalid(text) if text.contains("secretAccessor")), "{missing}");
}

/// Bar 7g for tools: credentials in every place that a target returns, and in none that leaves the guard.
#[test]
fn no_output_of_a_tool_holds_a_credential() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("leak");
    // Prints its environment and credentials of every form, fails with one, and has one in its state.
    let forms = [
        "password=CANARY-form-1",
        "Authorization: Bearer CANARY-form-2-CANARY",
        "postgres://app:CANARY-form-3@db/x",
        "ghp_CANARYformCANARYformCANARYform",
        "AWS_SECRET_ACCESS_KEY=CANARY-form-4",
        "-----BEGIN PRIVATE KEY-----",
        "CANARY-form-5",
    ];
    let print: String = forms.iter().map(|form| format!("echo '{form}'; echo '{form}' >&2\n")).collect();
    let script =
        format!("#!/bin/sh\ncase \"$1\" in probe) exit 1;; esac\nenv\necho \"$TOKEN\" | base64\n{print}exit \"$2\"\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |word: &str, code: &str| json!({ "program": program, "arguments": [word, code] });
    let command = |name: &str, state: &str| {
        json!({ "name": name, "summary": "leak", "run": run("run", "3"), "state": run("state", state),
            "probe": run("probe", "1"), "dry-run": run("diff", "0") })
    };
    let password = Arc::new(Mutex::new("CANARY-vault/+ x".to_owned()));
    let server = vault(password);
    let targets = json!([{ "tool": "exec", "name": "leak", "blast-radius": "nothing", "folder": dir.path(),
        "environment": { "TOKEN": "CANARY-literal-token", "PASSWORD": "vault:kv/redis#password" },
        "commands": [
            command("change", "0"),
            command("broken", "4"),
            { "name": "read", "summary": "leak", "read-only": true, "run": run("read", "0") },
        ] }]);
    let config =
        serde_json::from_value(json!({ "vault": { "address": server.url(), "login": { "token": "hvs.CANARY" } } }));
    let context = Context::new(config.unwrap(), Arc::new(local_programs(&targets)), dir.path());
    let tool = tool_with(&targets, &context);
    let change = call("exec", "change", "leak", json!({}));
    let dry_run = tool.plan(&change).unwrap();
    let lines = Mutex::new(Vec::new());
    let progress = |text: &str| lines.lock().unwrap().push(text.to_owned());
    let run = Run { progress: &progress, ..Run::new(&dry_run.precondition, "key") };
    let outputs = [
        format!("{dry_run:?}"),
        format!("{:?}", tool.execute(&change, &run)),
        format!("{:?}", tool.state(&change)),
        format!("{:?}", tool.plan(&call("exec", "broken", "leak", json!({})))),
        format!("{:?}", tool.state(&call("exec", "broken", "leak", json!({})))),
        format!("{:?}", tool.read(&call("exec", "read", "leak", json!({})), Duration::ZERO)),
        format!("{:?}", lines.lock().unwrap()),
        format!("{:?}", read_targets(&targets)),
        shown(&read_targets(&targets)[0]).to_string(),
        format!("{context:?}"),
    ];
    for output in outputs {
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode("CANARY-literal-token");
        assert!(!output.contains("CANARY") && !output.contains(&encoded), "{output}");
    }
    // Redaction comes before truncation: a cut through a credential leaves no part of it.
    for limit in [1, 50, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 150, 200] {
        let mut targets = targets.clone();
        targets[0]["output-bytes"] = limit.into();
        let tool = tool_with(&targets, &context);
        let value = tool.read(&call("exec", "read", "leak", json!({})), Duration::ZERO).unwrap().to_string();
        assert!(!value.contains("CANAR"), "{limit}: {value}");
    }
}
