//! A person in a real Chromium with a virtual authenticator (Playwright): registers a passkey, logs in with it and
//! approves a plan, which the executor carries out. Chromium is large: `cargo xtask test-browser` runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use serde_json::json;
use wardroom_testing::server::{create_token, program};

use crate::identity::wait_for;
use crate::incidents::with_slow_cart;

#[test]
#[ignore = "cargo xtask test-browser runs it: it needs Chromium"]
fn a_person_approves_with_a_passkey_in_chromium() {
    let mut scenario = with_slow_cart(&[], "awaiting_approval");
    // Passkeys need a name, and browsers trust this one without TLS.
    let url = scenario.server.url.replace("127.0.0.1", "localhost");
    scenario.server.set_environment("WARDROOM_IDENTITY__PUBLIC_URL", &url);
    scenario.server.restart().unwrap();
    let server = &scenario.server;
    let admin = create_token(&server.dir.join("data"), "ada", "admin").unwrap();
    wait_for(|| server.get("/api/v1/users", &admin).unwrap().0 == 200);
    let alice = json!({ "principal": "alice", "role": "responder" });
    assert_eq!(server.post_json("/api/v1/users", &admin, &alice).unwrap().0, 201);
    // Node finds packages beside the script.
    std::fs::write(server.dir.join("browser.mjs"), include_str!("clients/browser.mjs")).unwrap();
    let modules = program("CLIENT_NODE").join("node_modules");
    std::os::unix::fs::symlink(modules, server.dir.join("node_modules")).unwrap();
    let log = std::fs::File::create(server.dir.join("browser.log")).unwrap();
    let mut browser = Command::new("node")
        .args(["browser.mjs", &url, &server.responder_token])
        .arg(program("CHROMIUM_BIN"))
        .current_dir(&server.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(browser.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    // What an operator does with the line of the page.
    let yaml = std::fs::read_to_string(&server.executor_config).unwrap();
    let (_, targets) = yaml.split_once("targets:").unwrap();
    let approvers = format!("approvers:\n  - tenant: main\n    passkeys: |\n      {line}");
    let settings = format!("browser:\n  rp-id: localhost\n  origins: ['{url}']\n");
    std::fs::write(&server.executor_config, format!("{approvers}{settings}targets:{targets}")).unwrap();
    browser.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let ended = browser.wait().unwrap();
    let errors = std::fs::read_to_string(server.dir.join("browser.log")).unwrap();
    assert!(ended.success() && rest.contains("Approved by alice"), "{line}{rest}{errors}");
    wait_for(|| scenario.incident()["execution"] == "applied");
    let approval = scenario.incident()["approval"].clone();
    assert_eq!((&approval["proof"], &approval["channel"]), (&json!("passkey"), &json!("page")));
}
