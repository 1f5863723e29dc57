//! An incident as text.

use serde_json::{Map, Value};
use wardroom_domain::{Timestamp, visible_line};

use crate::age::format_age;
use crate::columns::{Tone, severity_tone, state_tone};
use crate::presentation::Presentation;
use crate::table_layout::colored;

/// Returns the lines: what it is about, its cause, plan, policy and approval, and the timeline.
pub(super) fn incident_lines(incident: &Value, presentation: &Presentation) -> Vec<String> {
    let color = |text: &str, tone| colored(text, tone, presentation.color);
    let state = text(&incident["state"]);
    let mut lines = vec![format!(
        "{}  {}  ({})",
        text(&incident["id"]),
        text(&incident["title"]),
        color(&state, state_tone(&state))
    )];
    let severity = text(&incident["severity"]);
    lines.push(format!(
        "opened  {}, severity {}",
        time(&incident["opened_at"], presentation),
        color(&severity, severity_tone(&severity))
    ));
    if let Some(owner) = incident["owner"].as_str() {
        lines.push(format!("owner   {}", visible_line(owner)));
    }
    if let Some(acknowledged) = incident["acknowledged"].as_object() {
        lines.push(format!("seen    by {} at {}", field(acknowledged, "by"), field(acknowledged, "at")));
    }
    if let Some(into) = incident["merged_into"].as_str() {
        lines.push(format!("same as {}", visible_line(into)));
    }
    if let Some(from) = incident["split_from"].as_str() {
        lines.push(format!("split   from {}", visible_line(from)));
    }
    if let Some(until) = incident["suppressed_until"].as_str() {
        lines.push(format!("quiet   until {}", visible_line(until)));
    }
    let entities = incident["entities"].as_array().into_iter().flatten();
    let entities: Vec<_> = entities.map(|it| format!("{} {}", text(&it["kind"]), text(&it["name"]))).collect();
    lines.push(format!("affects {}", entities.join(", ")));
    if let Some(cause) = incident["hypotheses"].get(0) {
        push_cause(cause, &mut lines);
    }
    if let Some(plan) = incident["plan"].as_object() {
        push_plan(plan, &mut lines);
    }
    if let Some(policy) = incident["policy"].as_object() {
        let rules: Vec<String> = policy["rules"].as_array().into_iter().flatten().map(text).collect();
        lines.push(format!("policy  {}: {} ({})", field(policy, "answer"), field(policy, "reason"), rules.join(", ")));
    }
    if let Some(approval) = incident["approval"].as_object() {
        let reason = Some(field(approval, "reason")).filter(|reason| !reason.is_empty());
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let (by, channel) = (field(approval, "by"), field(approval, "channel"));
        lines.push(format!("approved by {by} at {} ({channel}){reason}", field(approval, "at")));
    }
    for comment in incident["comments"].as_array().into_iter().flatten() {
        lines.push(format!("comment {}: {}", text(&comment["by"]), text(&comment["text"])));
    }
    for item in incident["timeline"].as_array().into_iter().flatten() {
        let at = color(&time(&item["at"], presentation), Tone::Dim);
        lines.push(format!("{at}  {}", text(&item["text"])));
    }
    lines
}

fn push_cause(cause: &Value, lines: &mut Vec<String>) {
    let confidence = cause["confidence"].as_f64().unwrap_or_default() * 100.0;
    lines.push(format!(
        "cause   {} at {} ({confidence:.0} %): {}",
        text(&cause["rule"]),
        text(&cause["entity"]["name"]),
        text(&cause["reasoning"])
    ));
    for check in cause["next_checks"].as_array().into_iter().flatten() {
        lines.push(format!("        check: {}", text(check)));
    }
}

/// The plan, all its steps and its hash: what an approver approves.
fn push_plan(plan: &Map<String, Value>, lines: &mut Vec<String>) {
    let steps: Vec<&Map<String, Value>> =
        plan.get("steps").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object).collect();
    if steps.is_empty() {
        let (tool, operation, target) = (field(plan, "tool"), field(plan, "operation"), field(plan, "target"));
        lines.push(format!("plan    {tool} {operation} of {target}"));
        let (diff, risk, affected) = (field(plan, "diff"), field(plan, "risk"), field(plan, "blast_radius"));
        lines.push(format!("        {diff}; risk {risk}; {affected}"));
    } else {
        lines.push(format!(
            "plan    {} steps; risk {}; {}",
            steps.len(),
            field(plan, "risk"),
            field(plan, "blast_radius")
        ));
        for (step, number) in steps.into_iter().zip(1..) {
            let (tool, operation, target) = (field(step, "tool"), field(step, "operation"), field(step, "target"));
            let undo = if step.get("reversible") == Some(&Value::Bool(false)) { "; it cannot be undone" } else { "" };
            let results = [("outcome", field(step, "outcome")), ("undo", field(step, "undo"))];
            let results = results.iter().filter(|(_, result)| !result.is_empty());
            let results: String = results.map(|(name, result)| format!("; {name}: {result}")).collect();
            lines.push(format!(
                "        {number}. {tool} {operation} of {target}: {}{undo}{results}",
                field(step, "diff")
            ));
        }
    }
    lines.push(format!("        sha256 {}", field(plan, "plan_sha256")));
}

fn text(value: &Value) -> String {
    visible_line(value.as_str().unwrap_or_default()).into_owned()
}

fn field(object: &Map<String, Value>, key: &str) -> String {
    object.get(key).map(text).unwrap_or_default()
}

fn time(value: &Value, presentation: &Presentation) -> String {
    let text = text(value);
    match Timestamp::parse(&text) {
        Ok(at) if presentation.has_ages() => format!("{text} ({} ago)", format_age(at, presentation.now)),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::presentation::OutputFormat;

    fn presentation() -> Presentation {
        Presentation {
            format: OutputFormat::Table,
            is_terminal: false,
            has_header: false,
            color: false,
            columns: None,
            now: Timestamp::parse("2026-01-02T03:07:06Z").unwrap(),
        }
    }

    fn incident() -> Value {
        json!({ "id": "INC-7", "state": "awaiting_approval", "severity": "high", "title": "cart is slow",
            "opened_at": "2026-01-02T03:04:05Z", "entities": [{ "kind": "service", "name": "cart" }],
            "hypotheses": [{ "rule": "connection-leak", "entity": { "name": "cart" }, "confidence": 0.9,
                "reasoning": "connections grow\nand requests wait", "next_checks": ["pool of cart"] }],
            "plan": { "tool": "process", "operation": "restart", "target": "cart", "diff": "pid 7 ends", "risk": "low",
                "blast_radius": "cart", "plan_sha256": "ab12" },
            "policy": { "answer": "ask-one", "reason": "low risk", "rules": ["one-person"] },
            "timeline": [{ "at": "2026-01-02T03:04:06Z", "text": "opened" }] })
    }

    #[test]
    fn a_plan_of_one_step_is_shown_with_its_cause_and_policy() {
        insta::assert_snapshot!(incident_lines(&incident(), &presentation()).join("\n"));
    }

    #[test]
    fn an_approver_sees_every_step() {
        let mut incident = incident();
        let step = |tool: &str, reversible: bool| json!({ "tool": tool, "operation": "restart", "target": "cart", "diff": "it starts again", "reversible": reversible });
        incident["plan"]["steps"] = json!([step("process", true), step("exec", false)]);
        let lines = incident_lines(&incident, &presentation());
        insta::assert_snapshot!(lines[4..8].join("\n"));
    }

    #[test]
    fn a_terminal_gets_ages_and_colors() {
        let lines = incident_lines(&incident(), &Presentation { is_terminal: true, color: true, ..presentation() });
        assert!(lines[0].contains("\u{1b}["), "{lines:?}");
        assert!(lines[1].contains("(3m ago)"), "{lines:?}");
    }
}
