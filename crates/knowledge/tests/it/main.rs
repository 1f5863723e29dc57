//! The right runbook is found for each cause.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use wardroom_domain::{Cause, Diagnosis, Entity, Evidence, Severity, Timestamp};
use wardroom_knowledge::{BUILTIN_RUNBOOKS, Config, Library, Runbook};

/// (Rule, with a deployment, expected runbook).
const CASES: [(&str, bool, &str); 24] = [
    ("connection-leak", true, "connection-pool-exhausted-by-release"),
    ("connection-leak", false, "connection-pool-exhausted"),
    ("pool-exhausted", false, "connection-pool-exhausted"),
    ("cpu-hog", true, "cpu-saturated-by-release"),
    ("cpu-hog", false, "cpu-saturated"),
    ("memory-leak", true, "memory-grows-since-release"),
    ("memory-leak", false, "memory-grows"),
    ("oom-kill", true, "memory-grows-since-release"),
    ("slow-dependency", true, "slow-since-release"),
    ("slow-dependency", false, "slow-dependency"),
    ("queue-full", true, "queue-backlog-since-release"),
    ("queue-full", false, "queue-backlog"),
    ("consumer-stopped", false, "queue-backlog"),
    ("consumer-slow", true, "queue-backlog-since-release"),
    ("bad-setting", false, "setting-changed"),
    ("failing-requests", true, "failing-since-release"),
    ("failing-requests", false, "failing-requests"),
    ("crash-loop", true, "failing-since-release"),
    ("bad-deployment", true, "failing-since-release"),
    ("calls-missing", true, "failing-since-release"),
    ("container-not-starting", true, "failing-since-release"),
    ("descriptor-leak", true, "descriptors-leak-since-release"),
    ("descriptor-leak", false, "descriptors-leak"),
    ("instance-down", true, "target-down"),
];
/// Rules for which no action is known: the answer says what a person should check.
const WITHOUT_RUNBOOK: [&str; 6] =
    ["unknown", "callee-unreachable", "network-delay", "certificate-expiry", "exporter-down", "disk-full"];

fn cause(rule: &str, deployed: bool) -> Cause {
    Cause {
        evidence: vec!["signal:a:errors".into()],
        deployment: deployed.then(|| "2.0".into()),
        setting: (rule == "bad-setting").then(|| ("k".into(), "20".into(), "1".into())),
        ..Cause::new(Entity::service("a"), rule, 0.9)
    }
}

fn found_runbook(library: &Library, rule: &str, deployed: bool) -> Option<String> {
    let evidence = Evidence {
        id: "signal:a:errors".into(),
        entity: Entity::service("a"),
        at: Timestamp::from_millis(0),
        summary: "31 % of requests fail (before: 0 %)".into(),
    };
    let causes = vec![cause(rule, deployed)];
    let diagnosis = Diagnosis { causes, evidence: vec![evidence], severity: Severity::High, impact: String::new() };
    library.for_diagnosis(&diagnosis).unwrap().map(|runbook| runbook.id.clone())
}

#[test]
fn finds_the_expected_runbook_for_every_cause() {
    let library = Library::load(&Config::default()).unwrap();
    for (rule, deployed, id) in CASES {
        assert_eq!(found_runbook(&library, rule, deployed).as_deref(), Some(id), "{rule} deployed={deployed}");
    }
    for rule in WITHOUT_RUNBOOK {
        assert_eq!(found_runbook(&library, rule, false), None, "{rule}");
    }
}

#[test]
fn every_builtin_runbook_is_selected_for_a_cause() {
    for (name, _) in BUILTIN_RUNBOOKS {
        let id = name.trim_end_matches(".md");
        assert!(CASES.iter().any(|(.., expected)| *expected == id), "no case needs {id}");
    }
}

#[test]
fn an_alert_finds_its_runbook_by_name_and_by_text() {
    let library = Library::load(&Config::default()).unwrap();
    let first = |name: &str, text: &str| library.for_alert(name, text, 1).unwrap()[0].id.clone();
    assert_eq!(first("KubePodCrashLooping", "pod is restarting"), "failing-since-release");
    assert_eq!(first("TargetDown", "target is down, up == 0 for instance"), "target-down");
    assert_eq!(first("TooManyOpenFiles", "open file descriptors near the limit, no release"), "descriptors-leak");
    let text = library.search("connections are taken from the pool and never returned since the release", 1).unwrap();
    assert_eq!(text[0].id, "connection-pool-exhausted-by-release");
}

#[test]
fn every_action_fills_its_placeholders() {
    for (name, text) in BUILTIN_RUNBOOKS {
        let runbook = Runbook::parse(name, text).unwrap();
        assert_eq!(format!("{}.md", runbook.id), *name);
        for rule in &runbook.causes {
            let proposal = runbook.proposal(&cause(rule, false)).unwrap();
            let call = &proposal.choices[0].steps[0];
            assert_eq!((call.tool.as_str(), call.target.as_str()), ("process", "a"));
            assert!(!format!("{proposal:?}").contains("{{"), "{name}");
        }
    }
}

#[test]
fn query_syntax_in_the_text_is_ignored() {
    let library = Library::load(&Config::default()).unwrap();
    for text in ["id:(a OR *)", "\"", "+-!(){}[]^~*?:\\", "", "title:\"x\"~1000000"] {
        library.search(text, 3).unwrap();
    }
}
