//! The executor trusts nobody: what is sent straight to its socket, and who can look at it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use wardroom_domain::{DryRun, Plan, TenantId, Timestamp, ToolCall};

use crate::server;
use wardroom_testing::now_ms;

fn ask(dir: &Path, request: &Value) -> Value {
    let mut stream = UnixStream::connect(dir.join("data/executor.sock")).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn plan(expires_in_ms: i64) -> Plan {
    Plan {
        version: 1,
        tenant: TenantId::main(),
        incident: "k".into(),
        call: ToolCall {
            tool: "process".into(),
            operation: "restart".into(),
            target: "a".into(),
            arguments: Default::default(),
        },
        dry_run: DryRun {
            diff: "a stops and starts again".into(),
            blast_radius: "a".into(),
            risk: "low".into(),
            reversible: false,
            precondition: "1.0.0".into(),
            undo: None,
        },
        runbook: "r".into(),
        control: "none".into(),
        expires_at: Timestamp::from_millis(now_ms() + expires_in_ms),
    }
}

#[test]
fn approval_hash_expiry_and_single_use_are_checked_at_the_socket() {
    let (dir, server) = server();
    let good = plan(60_000);
    let hash = good.sha256().unwrap();
    let authorize = |plan: &Plan, hash: &str, proof: &str| {
        ask(dir.path(), &json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": proof }))["code"]
            .clone()
    };
    let execute = |hash: &str| ask(dir.path(), &json!({ "op": "execute", "plan_sha256": hash }))["code"].clone();
    assert_eq!(execute(&hash), "not_approved");
    assert_eq!(authorize(&good, &hash, "wr_forged"), "not_an_approver");
    assert_eq!(authorize(&good, &hash, &server.sender), "not_an_approver");
    let mut changed = good.clone();
    changed.call.target = "b".into();
    assert_eq!(authorize(&changed, &hash, &server.responder), "hash_mismatch");
    let mut other_tenant = good.clone();
    other_tenant.tenant = TenantId::new("other").unwrap();
    assert_eq!(authorize(&other_tenant, &other_tenant.sha256().unwrap(), &server.responder), "not_an_approver");
    let expired = plan(-1000);
    assert_eq!(authorize(&expired, &expired.sha256().unwrap(), &server.responder), "expired");
    assert_eq!(authorize(&good, &hash, &server.responder), Value::Null, "the real approval is taken");
    assert_eq!(authorize(&good, &hash, &server.responder), "already_used");
    assert_eq!(execute(&hash), "invalid", "the target is not declared");
    assert_eq!(ask(dir.path(), &json!({ "op": "bogus" }))["code"], "invalid");
}

#[test]
fn of_many_approvals_at_once_one_counts() {
    let (dir, server) = server();
    for round in 0..5 {
        let plan = plan(60_000 + round);
        let request = json!({ "op": "authorize", "plan": plan, "plan_sha256": plan.sha256().unwrap(),
            "proof": server.responder });
        let codes: Vec<Value> = std::thread::scope(|scope| {
            let racing: Vec<_> = (0..64).map(|_| scope.spawn(|| ask(dir.path(), &request)["code"].clone())).collect();
            racing.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let taken = codes.iter().filter(|code| code.is_null()).count();
        let refused = codes.iter().filter(|code| **code == "already_used").count();
        assert_eq!((taken, refused), (1, 63), "round {round}");
    }
}

#[test]
fn an_approver_taken_off_the_list_may_approve_no_more_at_once() {
    let (dir, server) = server();
    let plan = plan(60_000);
    let hash = plan.sha256().unwrap();
    std::fs::write(&server.executor_config, "approvers: []\n").unwrap();
    let request = json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": server.responder });
    assert_eq!(ask(dir.path(), &request)["code"], "not_an_approver");
}

#[test]
fn the_confined_server_cannot_look_at_the_executor() {
    let (dir, server) = server();
    let (_, ready) = server.get("/readyz", "").unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["isolation"], "landlock", "this kernel must have Landlock for the test to mean anything");
    let executor = server.processes().into_iter().find(|(role, _)| role == "executor").unwrap().1;
    // The same walls, put up in a process of its own that then tries to look over them.
    let mut probe = std::process::Command::new(wardroom_testing::server::program("WARDROOM_BIN"));
    let looked = probe
        .args(["confined-probe", "--data"])
        .arg(dir.path().join("data"))
        .arg(&server.executor_config)
        .args([format!("/proc/{executor}/environ"), format!("/proc/{executor}/mem")])
        .arg(dir.path().join("data/executor/ledger.jsonl"))
        .output()
        .unwrap();
    let text = String::from_utf8(looked.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines.iter().all(|line| line.ends_with(" refused")), "{text}");
}

#[test]
fn the_executor_is_started_again_and_dies_with_its_parent() {
    let (_dir, mut server) = server();
    let pid = |server: &wardroom_testing::Server| {
        server.processes().into_iter().find(|(role, _)| role == "executor").map(|p| p.1)
    };
    let first = pid(&server).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let second = pid(&server).unwrap();
    assert_ne!(first, second);
    server.kill();
    std::thread::sleep(std::time::Duration::from_secs(1));
    // Where process 1 does not reap, a dead one stays behind as a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{second}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).unwrap_or("gone").to_owned();
    assert!(["Z", "gone"].contains(&state.as_str()), "the executor outlived its parent: {state}");
}
