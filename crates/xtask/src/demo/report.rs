//! The report of one seed: what broke, what Wardroom found and did, when, and whether it was right.

use serde_json::{Value, json};
use wardroom_domain::{Timestamp, visible_text};

use super::environment::DemoEnvironment;
use super::options::Options;

/// Lines of Wardroom's log that are printed after a seed that failed.
const LOG_TAIL_LINES: usize = 60;
/// A deployment is blamed by the naive comparison if it is at most this old when the incident opens, in ms.
const DEPLOYMENT_WINDOW_MS: f64 = 1_800_000.0;
/// An anomaly counts for the naive comparison if it is at most this old when the incident opens, in ms.
const ANOMALY_WINDOW_MS: f64 = 60_000.0;

/// What was observed while the demo ran.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The incident's last known state; null if there was none.
    pub(super) incident: Value,
    pub(super) incidents_before_fault: u64,
    pub(super) incidents: u64,
}

/// Stops the programs and creates the report, one JSON object.
///
/// # Errors
/// Returns an error if Wardroom cannot be queried or its audit log cannot be read.
pub(super) fn create(environment: DemoEnvironment, observed: &Observed, options: &Options) -> anyhow::Result<Value> {
    let (incident, truth) = (&observed.incident, environment.truth()?);
    let fault_ms = truth["fault"]["at_ms"].as_f64();
    let since_fault = |at: Option<f64>| at.zip(fault_ms).map(|(at, fault)| ((at - fault) / 10.0).round() / 100.0);
    let state_entered = |state: &str| {
        let mut timeline = incident["timeline"].as_array().into_iter().flatten();
        since_fault(timeline.find(|entry| entry["state"] == state).and_then(|entry| millis(&entry["at"])))
    };
    let anomalies = environment.get_all("/api/v1/anomalies", "anomalies")?;
    let first_anomaly = anomalies
        .iter()
        .filter_map(|anomaly| millis(&anomaly["at"]))
        .find(|at| fault_ms.is_some_and(|fault| *at >= fault));
    let opened = millis(&incident["opened_at"]);
    let deployments = environment.get("/api/v1/deployments")?;
    let cause = &incident["hypotheses"][0];
    let log = std::fs::read_to_string(environment.dir.join("wardroom.log"))?;
    let audit = environment.finish()?;
    let report = json!({
        "version": 1, "seed": options.settings.seed, "case": truth["case"],
        "fault": { "kind": truth["fault"]["kind"], "service": truth["fault"]["service"], "at": truth["fault"]["at"] },
        "cause": { "service": cause["service"], "kind": cause["kind"], "confidence": cause["confidence"], "evidence": cause["evidence"] },
        "naive": { "last_deployment": last_deployment(&deployments, opened), "highest_z": highest_z(&anomalies, opened) },
        "seconds": { "first_anomaly": since_fault(first_anomaly), "incident": state_entered("open"),
            "root_cause": state_entered("awaiting_approval"), "proposal": state_entered("awaiting_approval"),
            "approved": state_entered("mitigating"), "executed": state_entered("verifying"),
            "mitigated": state_entered("mitigated"), "resolved": state_entered("resolved") },
        "actions": actions(incident),
        "incidents": { "before_fault": observed.incidents_before_fault, "total": observed.incidents },
        "incident_id": incident["id"],
        "outcome": incident["outcome"].as_str().unwrap_or("none"),
        "audit": audit,
        "settings": { "rps": 40, "interval": "1s", "hold_s": 90, "good_s": 20, "z": [2.5, 3, 4],
            "names_seed": options.settings.names_seed, "otlp": options.settings.otlp },
    });
    if exit_code(&report) != 0 {
        // The folder with the log is removed when the demo ends.
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        anstream::eprintln!("last lines of wardroom.log:\n{}", visible_text(&tail.join("\n")));
    }
    Ok(report)
}

/// 0: resolved with the right cause; 2: wrong cause; 3: not resolved.
pub(super) fn exit_code(report: &Value) -> u8 {
    let correct_causes =
        report["cause"]["service"] == report["fault"]["service"] && report["cause"]["kind"] == report["fault"]["kind"];
    let applied = report["actions"][0]["outcome"] == "applied";
    match (correct_causes, report["outcome"] == "resolved" && applied) {
        (true, true) => 0,
        (false, _) if report["incident_id"].is_string() => 2,
        _ => 3,
    }
}

/// Service of the anomaly with the highest |z| in the minute before the incident opened.
fn highest_z(anomalies: &[Value], opened: Option<f64>) -> Option<Value> {
    let z = |anomaly: &Value| anomaly["z"].as_f64().unwrap_or_default().abs();
    anomalies
        .iter()
        .filter(|anomaly| is_within_window(&anomaly["at"], opened, ANOMALY_WINDOW_MS))
        .max_by(|a, b| z(a).total_cmp(&z(b)))
        .map(|anomaly| anomaly["service"].clone())
}

/// Service of the newest deployment in the half hour before the incident opened.
fn last_deployment(deployments: &Value, opened: Option<f64>) -> Option<Value> {
    let at = |deployment: &Value| millis(&deployment["at"]).unwrap_or(0.0);
    let list = deployments["deployments"].as_array().into_iter().flatten();
    list.filter(|deployment| is_within_window(&deployment["at"], opened, DEPLOYMENT_WINDOW_MS))
        .max_by(|a, b| at(a).total_cmp(&at(b)))
        .map(|deployment| deployment["service"].clone())
}

fn is_within_window(at: &Value, opened: Option<f64>, window_ms: f64) -> bool {
    millis(at).zip(opened).is_some_and(|(at, opened)| at <= opened && at >= opened - window_ms)
}

/// The executed action; empty if none was executed.
fn actions(incident: &Value) -> Vec<Value> {
    let plan = &incident["plan"];
    let action = incident["execution"].as_str().map(|outcome| {
        json!({ "tool": plan["tool"], "operation": plan["operation"], "target": plan["target"],
            "plan_sha256": plan["plan_sha256"], "idempotency_key": incident["idempotency_key"], "outcome": outcome })
    });
    action.into_iter().collect()
}

/// Parses an RFC 3339 time to ms since the epoch.
fn millis(at: &Value) -> Option<f64> {
    Timestamp::parse(at.as_str()?).ok().map(|at| at.millis() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_wrong_causes_from_unresolved_incidents() {
        let report = |kind: &str, outcome: &str, id: Value| {
            json!({ "fault": { "kind": "cpu-hog", "service": "cart" }, "cause": { "kind": kind, "service": "cart" },
                "actions": [{ "outcome": "applied" }], "outcome": outcome, "incident_id": id })
        };
        assert_eq!(exit_code(&report("cpu-hog", "resolved", json!("INC-1"))), 0);
        assert_eq!(exit_code(&report("queue-full", "resolved", json!("INC-1"))), 2);
        assert_eq!(exit_code(&report("cpu-hog", "escalated", json!("INC-1"))), 3);
        assert_eq!(exit_code(&report("none", "none", Value::Null)), 3);
    }
}
