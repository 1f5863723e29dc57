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
            affected: None,
            risk: "low".into(),
            reversible: false,
            precondition: "1.0.0".into(),
            undo: None,
        },
        further_steps: Vec::new(),
        runbook: "r".into(),
        control: "none".into(),
        expires_at: Timestamp::from_millis(now_ms() + expires_in_ms),
    }
}

/// Starts a server whose executor may act on target `a`, which does not respond.
fn server_with_target() -> (tempfile::TempDir, wardroom_testing::Server) {
    let dir = tempfile::tempdir().unwrap();
    let target = "  - tool: process\n    name: a\n    url: http://127.0.0.1:1\n    token: control\n";
    let server = wardroom_testing::Server::start(dir.path(), target, &[]).unwrap();
    (dir, server)
}

#[test]
fn verifies_approver_hash_expiry_and_single_use() {
    let (dir, server) = server_with_target();
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
    assert_eq!(execute(&hash), "unavailable", "the target does not respond");
    for op in ["undo", "settle"] {
        let without_proof = json!({ "op": op, "plan_sha256": hash });
        assert_eq!(send_request(dir.path(), &without_proof)["code"], "not_an_approver", "{op}");
        let of_sender = json!({ "op": op, "plan_sha256": hash, "proof": server.sender_token });
        assert_eq!(send_request(dir.path(), &of_sender)["code"], "not_an_approver", "{op}");
    }
    // Targets belong to tenants: the same plan for one that the file does not name, and a dry run for another tenant.
    let mut undeclared = plan(60_000);
    undeclared.call.target = "b".into();
    assert_eq!(authorize(&undeclared, &undeclared.sha256().unwrap(), &server.responder_token), "invalid");
    let dry_run = json!({ "op": "dry_run", "tenant": "other", "call": valid_plan.call });
    let refused = send_request(dir.path(), &dry_run);
    assert_eq!(refused["code"], "invalid", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("not declared for this tenant"), "{refused}");
    assert_eq!(send_request(dir.path(), &json!({ "op": "bogus" }))["code"], "invalid");
}

#[test]
fn concurrent_approvals_are_accepted_once() {
    let (dir, server) = server_with_target();
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

/// Runs a process in the server's sandbox that tries what is forbidden; returns an attempt and its result a line.
fn probe(data: &Path, arguments: &[String]) -> Vec<String> {
    let mut probe = std::process::Command::new(wardroom_testing::server::program("WARDROOM_BIN"));
    let output = probe.args(["confined-probe", "--data"]).arg(data).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn sandboxed_server_cannot_access_the_executor() {
    let (dir, server) = server();
    let mut readiness = (0..100).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        server.get("/readyz", "").unwrap()
    });
    let (_, ready) = readiness.find(|(status, _)| *status == 200).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["isolation"], "landlock", "the test requires a kernel with Landlock");
    let pid = |role: &str| server.processes().into_iter().find(|(found, _)| found == role).unwrap().1;
    for role in ["server", "executor"] {
        let sandbox = &ready["sandbox"][role];
        assert!(sandbox["landlock_abi"].as_u64().unwrap() > 0, "{ready}");
        assert_eq!((&sandbox["seccomp"], &sandbox["no_new_privs"]), (&json!(true), &json!(true)), "{ready}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid(role))).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{role}: {status}");
    }
    let (data, executor) = (dir.path().join("data"), pid("executor"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    // A process in the same sandbox tries to open what this test can open.
    let home = std::env::home_dir().unwrap();
    let open = [
        text(&server.executor_config),
        text(server.executor_config.parent().unwrap()),
        text(&data.join("executor/ledger.jsonl")),
        text(&data.join("executor")),
        text(&data.join("executor.lock")),
        text(&data),
        text(&home),
        "/etc/passwd".into(),
        "/etc".into(),
        "/usr/bin/env".into(),
        "/usr/lib".into(),
        "/usr/local".into(),
        "/srv".into(),
        "/var/log".into(),
        "/tmp".into(),
        "/run".into(),
        "/".into(),
        format!("/proc/{executor}/environ"),
        format!("/proc/{executor}/mem"),
        format!("/proc/{executor}/maps"),
        format!("/proc/{executor}/cmdline"),
        format!("/proc/{executor}/root"),
        "/proc/1/environ".into(),
        format!("/proc/self/root{}", text(&server.executor_config)),
    ];
    let create = [text(&data.join("file")), text(&data.join("executor/file")), "/tmp/wardroom-probe".into()];
    let create = create.into_iter().flat_map(|path| ["--create".to_owned(), path]);
    let arguments: Vec<String> =
        create.chain(["--signal".to_owned(), executor.to_string()]).chain(open.iter().cloned()).collect();
    let lines = probe(&data, &arguments);
    assert_eq!(lines.len(), open.len() + 4, "{lines:#?}");
    let opened: Vec<&String> = lines.iter().filter(|line| !line.ends_with(" refused")).collect();
    assert!(opened.is_empty(), "{opened:#?}");
    // What the server needs can be opened.
    let bus = text(&data.join("bus"));
    let needed = probe(&data, &["--create".to_owned(), format!("{bus}/probe"), bus, "/proc/self/status".to_owned()]);
    assert!(needed.len() == 3 && needed.iter().all(|line| line.ends_with(" opened")), "{needed:#?}");
}

/// Landlock cannot exclude a file from a folder that it allows, so such a place is refused.
#[test]
fn an_executor_configuration_where_the_server_may_read_is_refused() {
    let (dir, mut server) = server();
    assert_eq!(server.stop().unwrap(), Some(0));
    let (lake, data) = (dir.path().join("tables"), dir.path().join("data"));
    std::fs::create_dir(&lake).unwrap();
    let inside = lake.join("executor.yaml");
    std::fs::copy(&server.executor_config, &inside).unwrap();
    for (executor_config, lake, file) in
        [(&inside, &lake, &inside), (&server.executor_config, &data, &data.join("executor"))]
    {
        let mut serve = std::process::Command::new(wardroom_testing::server::program("WARDROOM_BIN"));
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        serve.arg("--executor-config").arg(executor_config).env("WARDROOM_LAKE__URI", lake);
        let output = serve.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains(&format!("{} lies in {}", file.display(), lake.display())), "{said}");
    }
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
        // The same at run time: the executor runs, and refuses every approval.
        spoil(&server.executor_config);
        let ready = || serde_json::from_str::<Value>(&server.get("/readyz", "").unwrap().1).unwrap();
        let down = (0..100).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            ready()
        });
        let down = down.into_iter().find(|ready| ready["executor"] == "down").unwrap();
        assert!(down["executor_error"].as_str().unwrap().contains(expected), "{what}: {down}");
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
