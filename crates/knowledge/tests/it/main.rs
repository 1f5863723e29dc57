//! Search finds the right runbook for each cause.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use wardroom_domain::{Cause, CauseKind, Diagnosis, Severity};
use wardroom_knowledge::{BUILTIN_RUNBOOKS, Config, Library, Runbook};

/// (Cause, with a deployment, expected runbook).
const CASES: [(CauseKind, bool, &str); 11] = [
    (CauseKind::ConnectionLeak, true, "connection-pool-exhausted-by-release"),
    (CauseKind::ConnectionLeak, false, "connection-pool-exhausted"),
    (CauseKind::CpuHog, true, "cpu-saturated-by-release"),
    (CauseKind::CpuHog, false, "cpu-saturated"),
    (CauseKind::MemoryLeak, true, "memory-grows-since-release"),
    (CauseKind::MemoryLeak, false, "memory-grows"),
    (CauseKind::SlowDependency, true, "slow-since-release"),
    (CauseKind::SlowDependency, false, "slow-dependency"),
    (CauseKind::QueueFull, true, "queue-backlog-since-release"),
    (CauseKind::QueueFull, false, "queue-backlog"),
    (CauseKind::BadSetting, false, "setting-changed"),
];
/// The alert of the Alertmanager fixture and its expected runbook.
const ALERT: (&str, &str) = ("TargetDown: target is down, up == 0 for instance", "target-down");

fn cause(kind: CauseKind, deployed: bool) -> Cause {
    Cause {
        service: "a".into(),
        kind,
        confidence: 0.9,
        reasoning: String::new(),
        evidence: vec!["signal:a:errors".into()],
        deployment: deployed.then(|| "2.0".into()),
        setting: (kind == CauseKind::BadSetting).then(|| ("k".into(), "20".into(), "1".into())),
    }
}

fn found_runbook(library: &Library, kind: CauseKind, deployed: bool) -> Option<String> {
    let diagnosis = Diagnosis {
        causes: vec![cause(kind, deployed)],
        evidence: vec![],
        severity: Severity::High,
        impact: String::new(),
    };
    library.for_diagnosis(&diagnosis).unwrap().map(|runbook| runbook.id.clone())
}

#[test]
fn finds_the_expected_runbook_for_every_cause() {
    let library = Library::load(&Config::default()).unwrap();
    assert!(library.runbooks().count() >= 12);
    for (kind, deployed, id) in CASES {
        assert_eq!(found_runbook(&library, kind, deployed).as_deref(), Some(id));
        let top = library.search(&wardroom_knowledge::query_of(&cause(kind, deployed)), 1).unwrap();
        assert_eq!(top[0].id, id, "top hit for {kind:?} deployed={deployed}");
    }
    assert_eq!(library.search(ALERT.0, 1).unwrap()[0].id, ALERT.1);
}

#[test]
fn every_builtin_runbook_is_selected_for_a_cause() {
    for (name, _) in BUILTIN_RUNBOOKS {
        let id = name.trim_end_matches(".md");
        let rest = BUILTIN_RUNBOOKS
            .iter()
            .filter(|(other, _)| other != name)
            .map(|(other, text)| Runbook::parse(other, text).unwrap());
        let library = Library::new(rest).unwrap();
        let all_found =
            CASES.iter().all(|(kind, deployed, id)| found_runbook(&library, *kind, *deployed).as_deref() == Some(*id))
                && library.search(ALERT.0, 1).unwrap()[0].id == ALERT.1;
        assert!(!all_found, "no case needs {id}");
    }
}

#[test]
fn every_action_fills_its_placeholders() {
    for (name, text) in BUILTIN_RUNBOOKS {
        let runbook = Runbook::parse(name, text).unwrap();
        assert_eq!(format!("{}.md", runbook.id), *name);
        for kind in &runbook.causes {
            let call = runbook.action(&cause(*kind, false)).unwrap();
            assert_eq!((call.tool.as_str(), call.target.as_str()), ("process", "a"));
            assert!(!serde_json::to_string(&call).unwrap().contains("{{"), "{name}");
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
