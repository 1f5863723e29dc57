//! The command line against a running server: formats, filters, exit codes, `--watch`, `doctor`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{create_token, program, run};

use crate::incidents::{Scenario, with_slow_cart};

/// Commands that print a list, with the name of its rows.
const LISTS: &[(&[&str], &str)] = &[
    (&["incidents", "list"], "incidents"),
    (&["incidents", "history", "INC-1"], "history"),
    (&["plans"], "plans"),
    (&["anomalies", "--since", "24h"], "anomalies"),
    (&["deployments", "--since", "24h"], "deployments"),
    (&["entities"], "entities"),
    (&["events", "--since", "24h"], "events"),
    (&["signals"], "signals"),
    (&["sources", "list"], "sources"),
    (&["tools", "targets"], "targets"),
    (&["approver", "list"], "approvers"),
    (&["audit", "list"], "entries"),
    (&["token", "list"], "tokens"),
    (&["users", "list"], "users"),
    (&["lake"], "tables"),
    (&["bus", "dlq", "list"], "dead_letters"),
    (&["policy", "autonomy"], "pairs"),
];

/// Runs a command as a principal; returns exit code, stdout and stderr.
fn cli(scenario: &Scenario, token: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program("WARDROOM_BIN"));
    command.args(arguments).env("WARDROOM_URL", &scenario.server.url).env("WARDROOM_TOKEN", token);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An administrator's token, once it is in force.
fn admin(scenario: &Scenario) -> String {
    let token = create_token(&scenario.server.dir.join("data"), "root", "admin").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while scenario.server.get("/api/v1/incidents", &token).unwrap().0 == 401 {
        assert!(Instant::now() < deadline, "a new token is in force within a second");
        std::thread::sleep(Duration::from_millis(50));
    }
    token
}

#[test]
fn a_server_is_worked_with_from_the_command_line() {
    let scenario = with_slow_cart(&[], "awaiting_approval");
    let admin = admin(&scenario);
    every_list_has_every_format(&scenario, &admin);
    filters_select(&scenario, &admin);
    a_person_works_on_an_incident(&scenario, &admin);
    exit_codes_tell_failures_apart(&scenario, &admin);
    watching_ends_with_its_reader(&scenario, &admin);
    tokens_are_managed_on_the_server(&scenario, &admin);
    users_are_managed_on_the_server(&scenario, &admin);
    a_person_makes_incidents(&scenario, &admin);
    the_doctor_finds_what_is_wrong(&scenario, &admin);
}

fn every_list_has_every_format(scenario: &Scenario, token: &str) {
    for (arguments, rows) in LISTS {
        let print = |format: &[&str]| {
            let (code, out, errors) = cli(scenario, token, &[arguments, format].concat());
            assert!(code == Some(0) && errors.is_empty(), "{arguments:?} {format:?}: {code:?} {out}{errors}");
            out
        };
        let document: Value = serde_json::from_str(&print(&["-o", "json"])).unwrap();
        assert!(document[rows].is_array(), "{arguments:?}: {document}");
        assert_eq!(print(&["--json"]).lines().count(), 1, "{arguments:?}: one object a line");
        assert!(print(&["-o", "yaml"]).contains(&format!("{rows}:")), "{arguments:?}");
        // Rows may come in the meantime.
        let [table, wide] = ["table", "wide"].map(|format| print(&["-o", format]));
        let Some(header) = table.lines().next() else { continue };
        let is_header = |line: &str| line.chars().all(|character| character.is_uppercase() || character == ' ');
        assert!(is_header(header) && wide.lines().next().is_some_and(is_header), "{arguments:?}: {table}{wide}");
        assert!(print(&[]).lines().all(|line| !is_header(line)), "{arguments:?}: a pipe gets no header");
        assert!(print(&["-o", "table", "--color", "always"]).contains("\u{1b}["), "{arguments:?}");
    }
    for arguments in [&["incidents", "show", "INC-1"][..], &["audit", "show", "1"], &["whoami"]] {
        let (code, out, errors) = cli(scenario, token, &[arguments, &["-o", "yaml"]].concat());
        assert!(code == Some(0) && out.starts_with("---\n"), "{arguments:?}: {out}{errors}");
        assert_eq!(cli(scenario, token, arguments).0, Some(0), "{arguments:?}");
    }
}

fn filters_select(scenario: &Scenario, token: &str) {
    for (filter, expected) in [
        (&["--state", "awaiting_approval"][..], 1),
        (&["--state", "closed,resolved"], 0),
        (&["--active", "--entity", "cart"], 1),
        (&["--entity", "newsletter"], 0),
        (&["--search", "no such text"], 0),
        (&["--since", "2099-01-01T00:00:00Z"], 0),
        (&["--limit", "1"], 1),
    ] {
        let (code, out, errors) = cli(scenario, token, &[&["incidents", "list"], filter].concat());
        assert!(code == Some(0) && out.lines().count() == expected, "{filter:?}: {out}{errors}");
    }
}

fn a_person_works_on_an_incident(scenario: &Scenario, token: &str) {
    for (arguments, message) in [
        (&["incidents", "ack", "INC-1"][..], "INC-1 acknowledged\n"),
        (&["incidents", "assign", "INC-1", "--to", "alice"], "INC-1 is assigned to alice\n"),
        (&["incidents", "comment", "INC-1", "the vendor confirms"], "INC-1 commented\n"),
        (&["incidents", "suppress", "INC-1", "--for", "2h"], "INC-1 sends no messages for 2h\n"),
    ] {
        let (code, out, errors) = cli(scenario, token, arguments);
        assert_eq!((code, out.as_str()), (Some(0), message), "{arguments:?}: {errors}");
    }
    let incident = scenario.incident();
    assert_eq!(incident["owner"], "alice", "{incident:#}");
    let (_, text, _) = cli(scenario, token, &["incidents", "show", "INC-1"]);
    assert!(text.contains("owner   alice") && text.contains("the vendor confirms"), "{text}");
    let old = ["incidents", "comment", "INC-1", "too late", "--revision", "0"];
    assert_eq!(cli(scenario, token, &old).0, Some(6), "another revision");
}

fn a_person_makes_incidents(scenario: &Scenario, token: &str) {
    let create = ["incidents", "create", "orders are late", "--entity", "mail", "--entity", "database:orders"];
    let (code, out, errors) = cli(scenario, token, &[&create[..], &["-o", "json"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    let created: Value = serde_json::from_str(&out).unwrap();
    let id = created["id"].as_str().unwrap();
    let (code, out, errors) = cli(scenario, token, &["incidents", "split", id, "--entity", "mail", "-o", "json"]);
    assert_eq!(code, Some(0), "{errors}");
    let split: Value = serde_json::from_str(&out).unwrap();
    let (_, shown, _) = cli(scenario, token, &["incidents", "show", split["created"]["id"].as_str().unwrap()]);
    assert!(shown.contains("mail: split from") && shown.contains(&format!("split   from {id}")), "{shown}");
    assert_eq!(cli(scenario, token, &["incidents", "split", id, "--entity", "mail"]).0, Some(1), "it is split off");
    assert_eq!(cli(scenario, token, &["incidents", "reopen", id]).0, Some(6), "it has not ended");
    assert_eq!(cli(scenario, token, &["incidents", "create", "orders are late"]).0, Some(2), "without an entity");
    let (_, rules, errors) = cli(scenario, token, &["policy", "show", "--server"]);
    assert_eq!(rules, run(&["policy", "show"]).unwrap().1, "{errors}");
}

fn exit_codes_tell_failures_apart(scenario: &Scenario, token: &str) {
    let code = |token: &str, arguments: &[&str]| cli(scenario, token, arguments).0;
    assert_eq!(code("unknown", &["incidents", "list"]), Some(4));
    assert_eq!(code(&scenario.server.sender_token, &["incidents", "list"]), Some(4));
    assert_eq!(code(token, &["incidents", "show", "INC-99"]), Some(5));
    assert_eq!(code(token, &["incidents", "close", "INC-1"]), Some(6), "it is not escalated");
    assert_eq!(code(token, &["incidents", "list", "--state", "opened"]), Some(2));
    let (code, out) = run(&["incidents", "list", "--url", "http://127.0.0.1:1"]).unwrap();
    assert_eq!((code, out.as_str()), (Some(7), ""));
}

/// As `… --watch | head -1`.
fn watching_ends_with_its_reader(scenario: &Scenario, token: &str) {
    for arguments in [&["incidents", "list"][..], &["incidents", "show", "INC-1"]] {
        let mut command = Command::new(program("WARDROOM_BIN"));
        command.args(arguments).args(["--watch=1", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("WARDROOM_URL", &scenario.server.url).env("WARDROOM_TOKEN", token);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("INC-1"), "{line}");
        let (started, status) = (Instant::now(), child.wait().unwrap());
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((status.code(), errors.as_str()), (Some(141), ""), "{arguments:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

fn tokens_are_managed_on_the_server(scenario: &Scenario, token: &str) {
    let create = ["token", "create", "--principal", "carol", "--role", "viewer", "--expires", "3d", "-o", "json"];
    let (code, text, errors) = cli(scenario, token, &create);
    assert_eq!(code, Some(0), "{text}{errors}");
    let created: Value = serde_json::from_str(&text).unwrap();
    assert!(created["token"].is_string(), "{created}");
    let id = created["id"].as_str().unwrap();
    let (_, doctor, _) = cli(scenario, token, &["doctor"]);
    assert!(doctor.contains(&format!("the token {id} of carol ends in 2d")), "{doctor}");
    let (code, text, errors) = cli(scenario, token, &["token", "revoke", id]);
    assert_eq!((code, text), (Some(0), format!("{id} revoked\n")), "{errors}");
    let (_, list, _) = cli(scenario, token, &["token", "list", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let carol = list["tokens"].as_array().unwrap().iter().find(|found| found["id"] == id).unwrap();
    assert!(carol["revoked_at"].is_string(), "{carol}");
}

fn users_are_managed_on_the_server(scenario: &Scenario, token: &str) {
    for (arguments, message) in [
        (&["users", "create", "dora", "--role", "viewer"][..], "dora created\n"),
        (&["users", "change", "dora", "--role", "responder"], "dora changed\n"),
        (&["users", "disable", "dora"], "dora may not enter any more\n"),
        (&["users", "end-sessions", "dora"], "0 sessions of dora ended\n"),
    ] {
        let (code, out, errors) = cli(scenario, token, arguments);
        assert_eq!((code, out.as_str()), (Some(0), message), "{arguments:?}: {errors}");
    }
    let (_, list, _) = cli(scenario, token, &["users", "list"]);
    assert!(list.lines().any(|line| line.starts_with("dora  responder  no")), "{list}");
    assert_eq!(cli(scenario, token, &["users", "enable", "unknown"]).0, Some(5));
}

fn the_doctor_finds_what_is_wrong(scenario: &Scenario, token: &str) {
    let findings = |token: &str| {
        let (code, text, errors) = cli(scenario, token, &["doctor", "-o", "json"]);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
        (code, report)
    };
    let has = |report: &Value, check: &str, level: &str| {
        report["findings"].as_array().unwrap().iter().any(|it| it["check"] == check && it["level"] == level)
    };
    let (_, report) = findings(token);
    for check in ["server", "credential", "bus", "database", "intake", "executor", "audit log"] {
        assert!(has(&report, check, "ok"), "{check}: {report:#}");
    }
    let stop = cli(scenario, token, &["stop-all", "--reason", "test"]);
    assert_eq!(stop.0, Some(0), "{stop:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (code, report) = findings(token);
        if has(&report, "actions", "warn") {
            assert_eq!((code, &report["ok"]), (Some(1), &json!(false)), "{report:#}");
            break;
        }
        assert!(Instant::now() < deadline, "{report:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (code, report) = findings("unknown");
    assert!(code == Some(1) && has(&report, "credential", "fail"), "{report:#}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wardroom.yaml");
    std::fs::write(&file, "detect:\n  error-ratio: 5\n").unwrap();
    let (code, text, _) = cli(scenario, token, &["doctor", "--config", &file.display().to_string()]);
    assert!(code == Some(1) && text.contains("detect.error-ratio") && text.contains("→"), "{text}");
}

/// In a real bash.
#[test]
fn bash_completes_commands_options_and_values() {
    let complete = |words: &[&str]| {
        let words_text = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let [last, before] = [words.len() - 1, words.len() - 2];
        let script = format!(
            "source <(\"$1\" completion bash); COMP_WORDS=({words_text}); COMP_CWORD={last}; \
             _wardroom wardroom '{}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            words[last], words[before]
        );
        let mut bash = Command::new("bash");
        let output = bash.args(["-c", &script, "bash"]).arg(program("WARDROOM_BIN")).output().unwrap();
        assert!(output.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["wardroom", "incidents", "li"]), "list\n");
    assert_eq!(complete(&["wardroom", "incidents", "list", "--sever"]), "--severity\n");
    assert_eq!(complete(&["wardroom", "incidents", "list", "-o", "y"]), "yaml\n");
    assert!(complete(&["wardroom", ""]).split(' ').any(|command| command == "incidents"));
}

/// What commands ask is in the OpenAPI document.
#[test]
fn the_paths_of_commands_are_in_the_openapi_document() {
    let (_, text) = run(&["openapi"]).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    // Without the names of parameters.
    let shape = |path: &str| {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
        parts.collect::<Vec<_>>().join("/")
    };
    let known: BTreeSet<String> = document["paths"].as_object().unwrap().keys().map(|path| shape(path)).collect();
    let mut asked = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let paths = source.split("\"/api/v1/").skip(1).filter_map(|rest| rest.split(['"', '?']).next());
            asked.extend(paths.map(|rest| shape(&format!("/api/v1/{rest}"))));
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
    // A decision's name is a parameter of the function that sends it.
    asked.remove("/api/v1/incidents/{}/{}");
    let unknown: Vec<&String> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in {known:?}");
}
