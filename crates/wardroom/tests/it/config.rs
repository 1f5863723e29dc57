//! Validation of the configuration, and the exit of a command whose reader has ended.

use std::process::Command;

use wardroom_testing::server::{program, run};

/// Checks a file. Returns the exit code, stdout and stderr.
fn check(text: &str) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wardroom.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(program("WARDROOM_BIN"));
    let output = command.args(["config", "check", "--config", file.to_str().unwrap()]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn config_check_accepts_valid_and_rejects_invalid_files() {
    for text in ["", "detect:\n  z-warning: 3\nrespond:\n  hold: 120\n"] {
        let (code, out, errors) = check(text);
        assert!(code == Some(0) && out.ends_with(" is valid\n") && errors.is_empty(), "{text}: {out}{errors}");
    }
    let mut all = String::new();
    for (text, field) in [
        ("detect:\n  z-warning: lots\n", "detect.z-warning"),
        ("detektor: {}\n", "detektor"),
        ("detect:\n  error-ratio: 5\n", "detect.error-ratio: 5 is not in 0 to 1"),
        ("heartbeat:\n  url: nonsense\n", "heartbeat.url"),
        ("knowledge:\n  runbooks: /nonexistent/runbooks\n", "knowledge.runbooks"),
        ("backup:\n  to: /dev/null/backups\n", "backup.to"),
        ("lake:\n  retention:\n    - table: silver.smples\n      days: 3\n", "silver.smples; known: silver.samples"),
        ("lake:\n  uri: ftp://host/tables\n", "lake.uri"),
        ("edge:\n  otlp-grpc: 4317\n", "edge.otlp-grpc"),
        ("a: [\n", "configuration"),
    ] {
        let (code, out, errors) = check(text);
        assert!(code == Some(1) && out.is_empty() && errors.contains(field), "{text}: {out}{errors}");
        all += &errors;
    }
    assert!(!all.contains(".rs:") && !all.contains("crates/"), "source paths: {all}");
    let (_, _, errors) =
        check("detect:\n  error-ratio: 5\n  cpu: -1\nheartbeat:\n  url: x\nbackup:\n  to: /dev/null/x\n");
    assert_eq!(errors.matches("field ").count(), 4, "every problem is reported: {errors}");
}

/// The example of docs/state.md. The file with the password has to exist.
#[test]
fn documented_store_settings_are_accepted() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state.md")).unwrap();
    let (_, rest) = page.split_once("```yaml test=documented_store_settings_are_accepted\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let (_, _, errors) = check(&example.replace("/etc/wardroom/", "/nonexistent/"));
    assert!(errors.contains("field store.password: the file cannot be read"), "{errors}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("database-password"), "secret\n").unwrap();
    let (code, out, errors) = check(&example.replace("/etc/wardroom/", &format!("{}/", dir.path().display())));
    assert!(code == Some(0) && errors.is_empty(), "{out}{errors}");
}

#[test]
fn config_check_reads_the_executors_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (config, executor) = (dir.path().join("wardroom.yaml"), dir.path().join("executor.yaml"));
    std::fs::write(&config, "").unwrap();
    let hash = "a".repeat(64);
    for (ending, expected) in [("", Some(0)), ("  -", Some(1))] {
        let text = format!(
            "approvers:\n  - principal: a\n    tenant: main\n    proof: token\n    token-sha256: \"{hash}{ending}\"\n"
        );
        std::fs::write(&executor, text).unwrap();
        std::fs::set_permissions(&executor, std::fs::Permissions::from_mode(0o600)).unwrap();
        let files = [config.to_str().unwrap(), executor.to_str().unwrap()];
        let arguments = ["config", "check", "--config", files[0], "--executor-config", files[1]];
        assert_eq!(run(&arguments).unwrap().0, expected, "{ending:?}");
    }
}

#[test]
fn serve_refuses_an_invalid_value_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("WARDROOM_BIN"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
    let output = command.env("WARDROOM_DETECT__ERROR_RATIO", "5").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && errors.contains("field detect.error-ratio"), "{errors}");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_command_ends_like_others_when_its_reader_has_ended() {
    let end = |arguments: &[&str], stdout: std::process::Stdio| {
        let mut command = Command::new(program("WARDROOM_BIN"));
        let output = command.args(arguments).stdout(stdout).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [&["config", "schema"][..], &["config", "show"], &["openapi"], &["crash-points"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // 128 + SIGPIPE, as a shell reports it for others.
        assert_eq!(end(arguments, writer.into()), (Some(141), String::new()), "{arguments:?}");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, errors) = end(arguments, full.into());
        assert!(code == Some(1) && errors.starts_with("error: ") && !errors.contains("panicked"), "{errors}");
    }
    // A token that could not be printed is not left in force.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let create = ["token", "create", "--data", &data, "--principal", "bob", "--role", "viewer"];
    for json in [&[][..], &["--json"]] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        for stdout in [std::process::Stdio::from(closed), full.into()] {
            let (code, errors) = end(&[&create[..], json].concat(), stdout);
            assert!(code == Some(1) && errors.contains("was revoked again"), "{errors}");
        }
    }
    let (_, tokens) = run(&["token", "list", "--data", &data, "--json"]).unwrap();
    let tokens: serde_json::Value = serde_json::from_str(&tokens).unwrap();
    let tokens = tokens["tokens"].as_array().unwrap();
    assert!(tokens.len() == 4 && tokens.iter().all(|token| token["revoked_at"].is_string()), "{tokens:?}");
}

#[test]
fn auth_off_requires_a_loopback_address() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let (code, out) = run(&["serve", "--data", &data, "--listen", "0.0.0.0:0", "--auth", "off"]).unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
}
