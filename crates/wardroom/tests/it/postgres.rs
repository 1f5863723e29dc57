//! The state in PostgreSQL: commands find it, and a server that is configured otherwise does not start.

use wardroom_testing::{PostgresServer, Server, server};

#[test]
fn the_state_in_postgresql_is_found_by_commands_and_not_mixed_up_with_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = PostgresServer::start(&dir.path().join("postgres")).unwrap();
    postgres.create_database("wardroom").unwrap();
    let password_file = dir.path().join("database-password");
    std::fs::write(&password_file, format!("{}\n", postgres.password)).unwrap();
    let (url, reference) = (postgres.url("wardroom"), format!("file:{}", password_file.display()));
    let environment = [("WARDROOM_STORE__URL", url.as_str()), ("WARDROOM_STORE__PASSWORD", reference.as_str())];
    let folder = dir.path().join("server");
    let mut server = Server::start(&folder, "", &environment).unwrap();
    assert_eq!(server.get("/readyz", &server.responder_token).unwrap().0, 200);
    let line = br#"{"timestamp":"2026-11-30T12:00:00Z","level":"INFO","service":"web","message":"hello"}"#;
    let headers = [("Content-Type", "application/json")];
    assert_eq!(server.post("/ingest/logs", &server.sender_token, &headers, line).unwrap().0, 200);

    // Without the environment: the data folder says where its state is.
    let data = folder.join("data").display().to_string();
    let create = ["token", "create", "--json", "--data", &data, "--principal", "bob", "--role", "viewer"];
    let (code, output) = server::run(&create).unwrap();
    assert_eq!(code, Some(0), "{output}");
    let created: serde_json::Value = serde_json::from_str(&output).unwrap();
    let token = created["token"].as_str().unwrap();
    let is_known = || server.get("/api/v1/incidents", token).unwrap().0 == 200;
    assert!((0..100).any(|_| is_known() || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        false
    }));
    let location = std::fs::read_to_string(folder.join("data/state/store.json")).unwrap();
    assert!(location.contains(&url) && !location.contains(&postgres.password), "{location}");
    assert!(!folder.join("data/state/wardroom.db").exists());
    let (code, _) = server::run(&["audit", "verify", "--data", &data]).unwrap();
    assert_eq!(code, Some(0));
    let backup = dir.path().join("backup").display().to_string();
    assert_ne!(server::run(&["backup", "--data", &data, "--to", &backup]).unwrap().0, Some(0));

    // The tokens are still there after a restart, and none of them is in a data folder that forgot where they are.
    server.restart().unwrap();
    assert_eq!(server.get("/api/v1/incidents", token).unwrap().0, 200);
    server.kill();
    let serve = ["serve", "--data", &data, "--listen", "127.0.0.1:0"];
    assert_ne!(server::run(&serve).unwrap().0, Some(0), "SQLite is configured");
}
