use serde_json::{Value, json};
use wardroom_domain::Timestamp;

use super::facts::{Fact, Facts};
use super::*;
use crate::metrics_text::parse_metrics;
use crate::presentation::OutputFormat;

fn healthy() -> Facts {
    let ready = json!({ "status": "ready", "bus": "ok", "store": "ok", "lake": "ok", "queries": "ok",
        "audit": "signed", "audit_heads": "ok", "isolation": "landlock", "executor": "up", "executor_error": null,
        "approval_proof": "ssh", "actions": "possible", "detect_lag_records": 0 });
    let metrics = "wardroom_intake_accepted_records_total{protocol=\"otlp_http\"} 7\n\
                   wardroom_backup_last_success_timestamp_seconds 1767322800\n";
    Facts {
        url: "http://localhost:8080".to_owned(),
        has_token: true,
        now: Timestamp::parse("2026-01-02T03:04:05Z").unwrap(),
        server_seconds: Some(1_767_323_045),
        unreachable: None,
        ready: Fact::Known(ready),
        lag: Some((3, 2)),
        metrics: parse_metrics(metrics),
        whoami: Fact::Known(json!({ "principal": "alice", "role": "admin", "tenant": "main" })),
        incidents: Fact::Known(json!({ "incidents": [] })),
        dead_letters: Fact::Known(json!({ "dead_letters": [] })),
        sources: Fact::Known(json!({ "sources": [{ "protocol": "otlp_http", "last_at": "2026-01-02T03:04:00Z" }] })),
        tokens: Fact::Known(json!({ "tokens": [] })),
        approvers: Fact::Known(json!({ "approvers": [{ "principal": "alice" }] })),
    }
}

fn with_ready(key: &str, value: Value) -> Facts {
    let mut facts = healthy();
    let Fact::Known(ready) = &mut facts.ready else { panic!("{facts:?}") };
    ready[key] = value;
    facts
}

fn examine(facts: &Facts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(facts)).collect()
}

fn lines(facts: &Facts) -> String {
    let presentation = Presentation {
        format: OutputFormat::Table,
        is_terminal: false,
        has_header: false,
        color: false,
        columns: None,
        now: facts.now,
    };
    finding_lines(&examine(facts), &presentation).join("\n")
}

#[test]
fn a_healthy_server_needs_no_attention() {
    insta::assert_snapshot!(lines(&healthy()));
}

#[test]
fn a_server_that_does_not_answer_is_one_finding_with_a_remedy() {
    let mut facts = healthy();
    facts.unreachable = Some("no response from http://localhost:8080: connection refused".to_owned());
    for fact in [&mut facts.ready, &mut facts.whoami, &mut facts.incidents, &mut facts.dead_letters] {
        *fact = Fact::Absent;
    }
    for fact in [&mut facts.sources, &mut facts.tokens, &mut facts.approvers] {
        *fact = Fact::Absent;
    }
    (facts.server_seconds, facts.lag, facts.metrics) = (None, None, Vec::new());
    insta::assert_snapshot!(lines(&facts));
}

#[test]
fn every_fault_is_found_and_has_a_remedy() {
    let metric = |line: &str| {
        let mut facts = healthy();
        facts.metrics.extend(parse_metrics(line));
        facts
    };
    let mut cases: Vec<(&str, Facts)> = vec![
        ("server", with_ready("status", json!("degraded"))),
        ("bus", with_ready("bus", json!("no space left on device"))),
        ("database", with_ready("store", json!("database is locked"))),
        ("tables", with_ready("lake", json!("damaged files: 2"))),
        ("certificates", with_ready("tls", json!("http: cert-file: the certificate has expired"))),
        ("certificates", {
            let mut facts = with_ready("tls", json!("ok"));
            // Two days after the time of the facts.
            facts
                .metrics
                .extend(parse_metrics("wardroom_tls_certificate_expiry_seconds{listener=\"http\"} 1767495845"));
            facts
        }),
        ("queries", with_ready("queries", json!("no query worker runs"))),
        ("executor", with_ready("executor", json!("down"))),
        ("actions", with_ready("actions", json!("stopped"))),
        ("approvals", with_ready("approval_proof", json!("ssh, token"))),
        ("audit log", with_ready("audit_heads", json!("connection refused"))),
        ("sandbox", with_ready("isolation", json!("none"))),
        ("audit log", metric("wardroom_audit_unsigned_entries 3")),
        ("intake", metric("wardroom_intake_rejected_records_total{protocol=\"loki\",reason=\"too_old\"} 4")),
        ("intake", metric("wardroom_limited_records_total{limit=\"series\"} 4")),
        ("faults", metric("wardroom_detect_panics_total 1")),
        ("faults", metric("wardroom_log_lines_lost_total 1")),
    ];
    type Change = fn(&mut Facts);
    let changes: [(&str, Change); 9] = [
        ("clock", |facts| facts.server_seconds = Some(1_767_320_000)),
        ("detection", |facts| facts.lag = Some((5000, 5000))),
        ("intake", |facts| facts.metrics.retain(|sample| !sample.name.contains("intake"))),
        ("backup", |facts| facts.metrics.iter_mut().for_each(|sample| sample.value = sample.value.min(1.7e9))),
        ("sources", |facts| {
            facts.sources = Fact::Known(json!({ "sources": [{ "name": "loki", "last_at": "2026-01-01T00:00:00Z" }] }));
        }),
        ("records", |facts| facts.dead_letters = Fact::Known(json!({ "dead_letters": [{ "replayed_as": null }] }))),
        ("approvals", |facts| facts.approvers = Fact::Known(json!({ "approvers": [] }))),
        ("tokens", |facts| {
            facts.tokens = Fact::Known(json!({ "tokens": [{ "id": "t1", "expires_at": "2026-01-03T00:00:00Z" }] }));
        }),
        ("credential", |facts| (facts.whoami, facts.incidents) = (Fact::Refused(404), Fact::Refused(401))),
    ];
    for (check, change) in changes {
        let mut facts = healthy();
        change(&mut facts);
        cases.push((check, facts));
    }
    for (check, facts) in cases {
        let found = examine(&facts);
        let bad: Vec<&Finding> = found.iter().filter(|finding| finding.level >= Level::Warn).collect();
        assert!(!bad.is_empty() && bad.iter().all(|finding| finding.check == check), "{check}: {found:#?}");
        assert!(bad.iter().all(|finding| finding.remedy.is_some()), "{check}: {found:#?}");
    }
}

#[test]
fn what_a_token_may_not_read_is_no_fault() {
    let mut facts = healthy();
    (facts.whoami, facts.incidents) = (Fact::Refused(404), Fact::Refused(403));
    (facts.dead_letters, facts.sources) = (Fact::Refused(403), Fact::Refused(404));
    (facts.tokens, facts.approvers) = (Fact::Refused(403), Fact::Refused(404));
    assert!(examine(&facts).iter().all(|finding| finding.level < Level::Warn), "{}", lines(&facts));
}
