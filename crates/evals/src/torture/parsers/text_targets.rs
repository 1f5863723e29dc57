//! Fuzz targets: text that people write, and log messages.

use wardroom_detect::Engine;
use wardroom_domain::{Labels, LogEntry, Matcher, Severity, Timestamp};
use wardroom_knowledge::Runbook;
use wardroom_signals::Catalog;

use super::fuzz_target::{FuzzTarget, NOW_MS, discard};

/// Returns the targets.
pub(super) fn targets() -> Vec<FuzzTarget> {
    let runbooks = wardroom_knowledge::BUILTIN_RUNBOOKS.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    let selectors = [r#"up{job="node",env!~"dev|test",x=~"a.*"}"#, r#"{__name__="g", q="a\"b\n"}"#];
    let lines = [
        "cannot reach 10.0.0.1:5432 after 31.5 s: pool exhausted (id=8f3a)",
        "configuration reloaded key=a from=1 to=2",
    ];
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        FuzzTarget {
            name: "selector",
            seeds: selectors.map(|text| text.as_bytes().to_vec()).into(),
            parse: Box::new(move |bytes| discard(Matcher::parse_selector(&lossy(bytes)).is_ok())),
        },
        FuzzTarget {
            name: "timestamp",
            seeds: vec![b"2026-11-21T10:00:00.123456789+01:00".to_vec(), b"1795255200.5".to_vec()],
            parse: Box::new(move |bytes| discard(Timestamp::parse(&lossy(bytes)).is_ok())),
        },
        FuzzTarget {
            name: "log template",
            seeds: lines.map(|text| text.as_bytes().to_vec()).into(),
            parse: Box::new(move |bytes| {
                let mut engine = Engine::new(wardroom_detect::Config::default(), Catalog::builtin());
                let at = Timestamp::from_millis(NOW_MS);
                let (message, service) = (lossy(bytes), "a".to_owned());
                engine.observe_log(&LogEntry {
                    at,
                    severity: Severity::High,
                    message,
                    service,
                    labels: Labels::default(),
                });
                discard(engine.templates(at, at, Severity::Info, |_| true).len());
            }),
        },
        FuzzTarget {
            name: "runbook",
            seeds: runbooks,
            parse: Box::new(move |bytes| discard(Runbook::parse("x", &lossy(bytes)).is_ok())),
        },
    ]
}
