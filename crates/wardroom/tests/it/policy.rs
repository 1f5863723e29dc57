//! The policy through the command line and the API: checks of a file, situations, and earned autonomy.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use wardroom_domain::Timestamp;
use wardroom_testing::Server;
use wardroom_testing::server::{create_token, run};

use crate::server;

/// Writes what an incident that has ended leaves behind: a connection leak, and a restart that a person approved.
fn insert_finished_incident(server: &Server, number: i64, helped: bool) {
    let entity = json!({ "kind": "service", "cluster": "", "environment": "", "namespace": "", "name": "cart" });
    let body = json!({
        "version": 1, "state": "resolved", "outcome": "resolved", "title": "requests of cart fail",
        "severity": "critical", "trigger": "sustained_breach", "began_at": Timestamp::from_millis(1), "entities": [],
        "causes": [{ "entity": entity, "rule": "connection-leak", "confidence": 0.9, "reasoning": "", "evidence": [],
            "deployment": null, "setting": null }],
        "evidence": [], "investigations": 1,
        "call": { "tool": "process", "operation": "restart", "target": "cart", "arguments": {} },
        "diff": "", "runbook": "", "is_approved": true, "approved_by": ["alice"], "execution": "applied",
        "undo": null, "helped": helped, "approval_seconds": 5.0, "verdict": null,
    });
    with_database(server, async |connection| {
        let insert = "INSERT INTO finished_incidents (tenant, incident, finished_at, body) VALUES ('main', ?, ?, ?)";
        let now = wardroom_testing::now_ms() * 1_000_000;
        let row = sqlx::query(insert).bind(format!("incident {number}")).bind(now).bind(body.to_string());
        row.execute(connection).await.unwrap();
    });
}

fn with_database<T>(server: &Server, work: impl AsyncFnOnce(&mut SqliteConnection) -> T) -> T {
    let url = format!("sqlite://{}", server.dir.join("data/state/wardroom.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let result = work(&mut connection).await;
        connection.close().await.unwrap();
        result
    })
}

/// Returns where the restart of a connection leak stands.
fn standing(server: &Server, token: &str) -> Value {
    let (status, text) = server.get("/api/v1/autonomy", token).unwrap();
    assert_eq!(status, 200, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    list["pairs"][0].clone()
}

#[test]
fn an_action_earns_autonomy_and_loses_it() {
    let (_dir, server) = server();
    let admin = create_token(&server.dir.join("data"), "root", "admin").unwrap();
    // The new token is in force within a second.
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.get("/api/v1/autonomy", &admin).unwrap().0 == 401 {
        assert!(Instant::now() < deadline, "the token is not in force");
        std::thread::sleep(Duration::from_millis(100));
    }
    let change = |token: &str, level: &str| {
        let body = json!({ "rule": "connection-leak", "tool": "process", "operation": "restart", "level": level });
        let (status, response) = server.post_json("/api/v1/autonomy", token, &body).unwrap();
        (status, response["code"].clone())
    };
    (0..9).for_each(|number| insert_finished_incident(&server, number, true));
    assert_eq!(standing(&server, &admin)["offer"], Value::Null, "nine of nine are not enough");
    assert_eq!(change(&admin, "night"), (409, json!("not_earned")));
    insert_finished_incident(&server, 9, true);
    let offered = standing(&server, &admin);
    assert_eq!((&offered["level"], &offered["offer"]), (&json!("ask"), &json!("night")), "{offered}");
    assert_eq!(offered["helped"], json!([10, 10]));
    assert_eq!(change(&server.responder_token, "night"), (403, json!("role_forbidden")), "only an administrator");
    assert_eq!(change(&admin, "automatic"), (409, json!("not_earned")), "one level after the other");
    let accept = ["policy", "accept", "connection-leak", "process", "restart", "--level", "night"];
    let remote = ["--url", &server.url, "--token", &admin];
    let (code, text) = run(&[&accept[..], &remote[..]].concat()).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(standing(&server, &admin)["level"], "night");
    let (code, text) = run(&[&["policy", "autonomy"][..], &remote[..]].concat()).unwrap();
    assert!(code == Some(0) && text.contains("night") && text.contains("10 of 10"), "{text}");
    insert_finished_incident(&server, 10, false);
    let lost = standing(&server, &admin);
    assert_eq!((&lost["level"], &lost["offer"], &lost["helped"]), (&json!("ask"), &Value::Null, &json!([0, 0])));
    let audited = with_database(&server, async |connection| {
        let select = "SELECT COUNT(*) FROM audit WHERE body LIKE '%autonomy_set%' OR body LIKE '%autonomy_refused%'";
        sqlx::query_scalar::<_, i64>(select).fetch_one(connection).await.unwrap()
    });
    assert_eq!(audited, 3, "one accepted, two refused");
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn rules_are_checked_and_asked_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let situations = write(dir.path(), "situations.yaml", include_str!("../../../policy/tests/situations.yaml"));
    let (code, text) = run(&["policy", "test", &situations]).unwrap();
    assert!(code == Some(0) && text.contains("0 not as expected"), "{text}");
    let (code, text) = run(&["policy", "lint"]).unwrap();
    assert_eq!((code, text.trim()), (Some(0), "built-in: no findings"));
    let (_, builtin) = run(&["policy", "show"]).unwrap();
    let permissive = format!("{builtin}\n@id(\"all\")\n@reason(\"r\")\npermit (principal, action, resource);\n");
    let permissive = write(dir.path(), "permissive.cedar", &permissive);
    let (code, text) = run(&["policy", "test", &situations, &permissive]).unwrap();
    assert!(code == Some(1) && text.contains("expected ask-one"), "{text}");
    let (code, text) = run(&["policy", "lint", &permissive]).unwrap();
    assert!(code == Some(1) && text.contains("rule one-person-may-act: wherever it matches, all does"), "{text}");
    let wrong = write(dir.path(), "wrong.cedar", "@id(\"a\")\npermit (principal, action == Action::\"go\", resource);");
    let config = write(dir.path(), "wardroom.yaml", &format!("policy:\n  file: {wrong}\n"));
    for arguments in [["policy", "lint", wrong.as_str()], ["config", "check", &format!("--config={config}")]] {
        let (code, text) = run(&arguments).unwrap();
        assert!(code != Some(0), "{text}");
    }
}
