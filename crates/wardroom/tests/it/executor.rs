//! The executor verifies every request on its socket, and the sandboxed server cannot access it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use wardroom_domain::{DryRun, Plan, TenantId, Timestamp, ToolCall};

use crate::server;
use wardroom_testing::now_ms;

fn send_request(dir: &Path, request: &Value) -> Value {
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
fn verifies_approver_hash_expiry_and_single_use() {
    let (dir, server) = server();
    let valid_plan = plan(60_000);
    let hash = valid_plan.sha256().unwrap();
    let authorize = |plan: &Plan, hash: &str, proof: &str| {
        send_request(dir.path(), &json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": proof }))["code"]
            .clone()
    };
    let execute =
        |hash: &str| send_request(dir.path(), &json!({ "op": "execute", "plan_sha256": hash }))["code"].clone();
    assert_eq!(execute(&hash), "not_approved");
    assert_eq!(authorize(&valid_plan, &hash, "wr_forged"), "not_an_approver");
    assert_eq!(authorize(&valid_plan, &hash, &server.sender_token), "not_an_approver");
    let mut changed = valid_plan.clone();
    changed.call.target = "b".into();
    assert_eq!(authorize(&changed, &hash, &server.responder_token), "hash_mismatch");
    let mut other_tenant = valid_plan.clone();
    other_tenant.tenant = TenantId::new("other").unwrap();
    assert_eq!(authorize(&other_tenant, &other_tenant.sha256().unwrap(), &server.responder_token), "not_an_approver");
    let expired = plan(-1000);
    assert_eq!(authorize(&expired, &expired.sha256().unwrap(), &server.responder_token), "expired");
    assert_eq!(authorize(&valid_plan, &hash, &server.responder_token), Value::Null, "a valid approval is accepted");
    assert_eq!(authorize(&valid_plan, &hash, &server.responder_token), "already_used");
    assert_eq!(execute(&hash), "invalid", "the target is not declared");
    assert_eq!(send_request(dir.path(), &json!({ "op": "bogus" }))["code"], "invalid");
}

#[test]
fn concurrent_approvals_are_accepted_once() {
    let (dir, server) = server();
    for round in 0..5 {
        let plan = plan(60_000 + round);
        let request = json!({ "op": "authorize", "plan": plan, "plan_sha256": plan.sha256().unwrap(),
            "proof": server.responder_token });
        let codes: Vec<Value> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..64).map(|_| scope.spawn(|| send_request(dir.path(), &request)["code"].clone())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let accepted = codes.iter().filter(|code| code.is_null()).count();
        let rejected = codes.iter().filter(|code| **code == "already_used").count();
        assert_eq!((accepted, rejected), (1, 63), "round {round}");
    }
}

#[test]
fn removed_approvers_are_rejected_immediately() {
    let (dir, server) = server();
    let plan = plan(60_000);
    let hash = plan.sha256().unwrap();
    std::fs::write(&server.executor_config, "approvers: []\n").unwrap();
    let request = json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": server.responder_token });
    assert_eq!(send_request(dir.path(), &request)["code"], "not_an_approver");
}

#[test]
fn sandboxed_server_cannot_access_the_executor() {
    let (dir, server) = server();
    let (_, ready) = server.get("/readyz", "").unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["isolation"], "landlock", "the test requires a kernel with Landlock");
    let executor = server.processes().into_iter().find(|(role, _)| role == "executor").unwrap().1;
    // A process in the same sandbox tries to open the files.
    let mut probe = std::process::Command::new(wardroom_testing::server::program("WARDROOM_BIN"));
    let output = probe
        .args(["confined-probe", "--data"])
        .arg(dir.path().join("data"))
        .arg(&server.executor_config)
        .args([format!("/proc/{executor}/environ"), format!("/proc/{executor}/mem")])
        .arg(dir.path().join("data/executor/ledger.jsonl"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines.iter().all(|line| line.ends_with(" refused")), "{text}");
}

#[test]
fn supervisor_restarts_the_executor_and_stops_it_on_exit() {
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
    // In a container whose init does not reap children, it stays a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{second}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).unwrap_or("gone").to_owned();
    assert!(["Z", "gone"].contains(&state.as_str()), "the executor outlived the supervisor: {state}");
}

/// Returns the lines of the log that a predicate selects, after waiting for the first.
fn wait_for_log(server: &wardroom_testing::Server, select: impl Fn(&str) -> bool) -> Vec<String> {
    let read = || {
        let log = std::fs::read_to_string(server.dir.join("wardroom.log")).unwrap_or_default();
        log.lines().filter(|line| select(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    for _ in 0..100 {
        if !read().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // What would come again and again comes now.
    std::thread::sleep(std::time::Duration::from_secs(3));
    read()
}

#[test]
fn a_missing_or_bad_configuration_is_told_once_until_it_is_corrected() {
    type Spoil = fn(&Path);
    let spoil: [(&str, Spoil, &str); 4] = [
        ("missing", |file| std::fs::remove_file(file).unwrap(), "No such file"),
        ("readable by others", |file| set_mode(file, 0o644), "chmod 600"),
        (
            "a symbolic link",
            |file| {
                let target = file.with_extension("target");
                std::fs::rename(file, &target).unwrap();
                std::os::unix::fs::symlink(target, file).unwrap();
            },
            "symbolic link",
        ),
        ("invalid", |file| std::fs::write(file, "approvers: [").unwrap(), "executor.yaml"),
    ];
    for (what, spoil, expected) in spoil {
        let (_dir, mut server) = server();
        let good = std::fs::read_to_string(&server.executor_config).unwrap();
        assert_eq!(server.stop().unwrap(), Some(0));
        std::fs::remove_file(server.dir.join("wardroom.log")).unwrap();
        spoil(&server.executor_config);
        server.restart().unwrap();
        let told = wait_for_log(&server, |line| line.contains("ERROR") && line.contains("executor"));
        assert_eq!(told.len(), 1, "{what}: {told:#?}");
        assert!(told[0].contains(expected) && told[0].contains("executor.yaml"), "{what}: {told:#?}");
        let (status, ready) = server.get("/readyz", "").unwrap();
        assert_eq!((status, &serde_json::from_str::<Value>(&ready).unwrap()["executor"]), (503, &json!("down")));

        std::fs::remove_file(&server.executor_config).unwrap_or_default();
        let corrected = server.executor_config.with_extension("corrected");
        std::fs::write(&corrected, &good).unwrap();
        set_mode(&corrected, 0o600);
        std::fs::rename(&corrected, &server.executor_config).unwrap();
        let is_up = || server.get("/readyz", "").unwrap().0 == 200;
        let up = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            is_up()
        });
        assert!(up, "{what}: the executor does not start after the file was corrected");
    }
}

fn set_mode(file: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The ledger is damaged: the executor cannot start, and the log is not filled with that.
#[test]
fn an_executor_that_cannot_start_is_started_less_and_less_often() {
    let (dir, mut server) = server();
    assert_eq!(server.stop().unwrap(), Some(0));
    std::fs::remove_file(server.dir.join("wardroom.log")).unwrap();
    let ledger = dir.path().join("data/executor/ledger.jsonl");
    std::fs::remove_file(&ledger).unwrap_or_default();
    std::fs::create_dir(&ledger).unwrap();
    server.restart().unwrap();
    let told = wait_for_log(&server, |line| line.contains("executor exited; restarting"));
    assert!((1..=3).contains(&told.len()), "{told:#?}");
}
