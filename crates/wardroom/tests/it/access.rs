//! Access control on every route, and the resources of an idle server.

use serde_json::Value;
use wardroom_testing::server::{create_token, run};

use crate::server;

/// Maximum private memory of all idle processes; 3 MiB of it are the conventions of signals, 4 MiB the policy's rules
/// and their schema, which the server and the executor each hold.
const MAX_PRIVATE_KIB: u64 = 48 * 1024;
/// Maximum memory of all idle processes, including the pages of the binary. The demo profile's binary is not optimised
/// and larger than the release build's, for which docs/performance.md has the figure.
const MAX_TOTAL_BYTES: u64 = 184_000_000;

#[test]
fn every_route_enforces_its_documented_access() {
    let (dir, server) = server();
    let data = dir.path().join("data");
    let viewer = create_token(&data, "vera", "viewer").unwrap();
    let admin = create_token(&data, "ada", "admin").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(900));
    let (_, text) = server.get("/openapi.json", "").unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut routes = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            routes += 1;
            // It would be read until it ends.
            if path == "/api/v1/stream" {
                continue;
            }
            let path = path.replace("{id}", "INC-1");
            let status = |token: &str| match method.as_str() {
                "get" => server.get(&path, token).unwrap().0,
                _ => server.post(&path, token, &[], b"").unwrap().0,
            };
            let access = operation["x-access"].as_str().unwrap();
            let allowed = |token: &str| ![401, 403].contains(&status(token));
            let tokens = [&server.sender_token, &viewer, &server.responder_token, &admin];
            let expected = match access {
                "public" => [true; 4],
                "send" => [true, false, false, true],
                "read" => [false, true, true, true],
                "respond" => [false, false, true, true],
                "admin" => [false, false, false, true],
                other => panic!("unknown access {other}"),
            };
            assert_eq!(tokens.map(|token| allowed(token)), expected, "{method} {path}");
            if access != "public" {
                assert_eq!(status("wr_wrong"), 401, "{method} {path}");
            }
        }
    }
    assert!(routes >= 20, "only {routes} routes");
}

#[test]
fn audits_rejections_and_rejects_a_revoked_token_within_a_second() {
    let (dir, mut server) = server();
    let data = dir.path().join("data").display().to_string();
    let (status, _, _) = server.post("/api/v1/incidents/INC-1/approve", &server.sender_token, &[], b"{}").unwrap();
    assert_eq!(status, 403);
    let (_, list) = run(&["token", "list", "--json", "--data", &data]).unwrap();
    let tokens: Value = serde_json::from_str(&list).unwrap();
    let id =
        tokens["tokens"].as_array().unwrap().iter().find(|token| token["principal"] == "oracle").unwrap()["id"].clone();
    let (code, _) = run(&["token", "revoke", "--data", &data, id.as_str().unwrap()]).unwrap();
    assert_eq!(code, Some(0));
    std::thread::sleep(std::time::Duration::from_millis(950));
    let (status, _, text) = server.post("/ingest/logs", &server.sender_token, &[], b"{}").unwrap();
    assert_eq!((status, text.contains("bad_token")), (401, true));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.stop().unwrap(), Some(0), "SIGTERM drains and exits with 0");
    let (code, verified) = run(&["audit", "verify", "--json", "--data", &data]).unwrap();
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!((code, &verified["ok"]), (Some(0), &Value::Bool(true)));
    assert!(verified["entries"].as_i64().unwrap() >= 2, "{verified}");
}

#[test]
fn starts_within_a_second_and_uses_little_memory() {
    let (_dir, mut server) = server();
    let started = std::time::Instant::now();
    server.restart().unwrap();
    let (status, _) = server.get("/healthz", "").unwrap();
    assert_eq!(status, 200);
    assert!(started.elapsed().as_secs_f64() < 1.0, "start to serving took {:?}", started.elapsed());
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (_, ready) = server.get("/readyz", "").unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((&ready["status"], &ready["durability"]), (&Value::from("ready"), &Value::from("survives-power-loss")));
    // All processes map the same binary, so its pages count once.
    let pids: Vec<u32> = server.processes().into_iter().map(|(_, pid)| pid).collect();
    let private: u64 = pids.iter().map(|pid| resident_kib(*pid, "RssAnon") + resident_kib(*pid, "RssShmem")).sum();
    let binary = pids.iter().map(|pid| resident_kib(*pid, "RssFile")).max().unwrap();
    assert!(
        private < MAX_PRIVATE_KIB && (private + binary) * 1024 < MAX_TOTAL_BYTES,
        "private memory of all processes: {private} KiB; pages of the binary: {binary} KiB"
    );
}

fn resident_kib(pid: u32, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(kind)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
