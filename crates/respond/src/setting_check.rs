//! Whether the target of an action confirms the setting that the cause names.

use serde_json::Value;
use wardroom_domain::{Cause, DryRun};

/// Returns why a change of a setting may not be proposed: the target itself must say that the setting has the announced
/// value now, since the announcement is a log line. The dry run's undo has the value that the target reports.
pub fn unconfirmed_setting(cause: &Cause, dry_run: &DryRun) -> Option<String> {
    let (key, from, to) = cause.setting.as_ref()?;
    let reported = dry_run.undo.as_ref().and_then(|undo| undo.arguments.get("value"));
    if reported.is_some_and(|value| is_same_value(value, to)) {
        return None;
    }
    let reported = reported.map_or_else(|| "no value".to_owned(), Value::to_string);
    Some(format!("{} does not confirm that {key} went from {from} to {to}: it reports {reported}", cause.entity))
}

/// Compares a reported value with one from a text: numbers by value.
fn is_same_value(reported: &Value, text: &str) -> bool {
    match reported {
        Value::String(reported) => reported == text,
        Value::Number(number) => number.as_f64() == text.parse().ok(),
        Value::Bool(reported) => text.parse() == Ok(*reported),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wardroom_domain::{Entity, ToolCall};

    use super::*;

    #[test]
    fn a_setting_is_proposed_only_if_the_target_reports_the_announced_value() {
        let cause = Cause {
            setting: Some(("pool".into(), "20".into(), "1".into())),
            ..Cause::new(Entity::service("cart"), "bad-setting", 0.9)
        };
        let dry_run = |value: Option<Value>| DryRun {
            diff: "pool goes from 1 to 20".into(),
            blast_radius: String::new(),
            affected: None,
            risk: "low".into(),
            reversible: true,
            precondition: "1".into(),
            undo: value.map(|value| ToolCall {
                tool: "process".into(),
                operation: "settings".into(),
                target: "cart".into(),
                arguments: json!({ "key": "pool", "value": value }).as_object().unwrap().clone(),
            }),
        };
        assert_eq!(unconfirmed_setting(&cause, &dry_run(Some(json!(1)))), None);
        assert_eq!(unconfirmed_setting(&cause, &dry_run(Some(json!("1")))), None);
        for value in [Some(json!(20)), Some(json!(10)), None] {
            let reason = unconfirmed_setting(&cause, &dry_run(value)).unwrap();
            assert!(reason.contains("does not confirm"), "{reason}");
        }
        let other = Cause::new(Entity::service("cart"), "cpu-hog", 0.9);
        assert_eq!(unconfirmed_setting(&other, &dry_run(None)), None);
    }
}
