//! How far a rollout is, and what a change changes: pure functions over objects of the API.

use serde_json::Value;

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rollout {
    /// All pods are new and available.
    Done,
    /// It goes on; with a line about how far it is.
    Running(String),
    /// It does not go on by itself; with the reason.
    Stuck(String),
}

/// Returns how far the rollout of a workload is, by the rules of `kubectl rollout status`.
pub(super) fn rollout(object: &Value) -> Rollout {
    let status = &object["status"];
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
    if number("observedGeneration") < generation {
        return Rollout::Running("the change is not yet seen by the controller".to_owned());
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded" {
            let message = condition["message"].as_str().unwrap_or("its progress deadline is exceeded");
            return Rollout::Stuck(message.to_owned());
        }
    }
    let (wanted, updated, available, all) = if object["kind"] == "DaemonSet" {
        let wanted = number("desiredNumberScheduled");
        (wanted, number("updatedNumberScheduled"), number("numberAvailable"), wanted)
    } else {
        let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
        // Stateful sets count their ready pods if they count no available ones.
        let available = status["availableReplicas"].as_u64().unwrap_or_else(|| number("readyReplicas"));
        (wanted, number("updatedReplicas"), available, number("replicas"))
    };
    if updated >= wanted && available >= wanted && all <= wanted.max(updated) {
        return Rollout::Done;
    }
    Rollout::Running(format!("{updated} of {wanted} pods are new, {available} available, {all} in all"))
}

/// Lists what differs between two objects' specifications, as `path: before → after`.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("spec", &before["spec"], &after["spec"], &mut lines);
    lines
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let value = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&format!("{path}.{name}"), &value(old), &value(new), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let place = new["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                compare(&format!("{path}[{place}]"), old, new, lines);
            }
        }
        _ => lines.push(format!("{path}: {} → {}", shown(path, before), shown(path, after))),
    }
}

/// A value in a difference. Values of environment variables may be credentials and are not shown.
fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        _ if path.contains(".env") => "(a value)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) if path.contains(".containers") => "(another definition)".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(observed: u64, updated: u64, available: u64, all: u64) -> Value {
        json!({ "kind": "Deployment", "metadata": { "generation": 2 }, "spec": { "replicas": 3 },
            "status": { "observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available,
                "replicas": all } })
    }

    #[test]
    fn a_rollout_is_done_when_all_pods_are_new_and_available() {
        assert!(matches!(rollout(&deployment(1, 3, 3, 3)), Rollout::Running(text) if text.contains("not yet seen")));
        assert!(matches!(rollout(&deployment(2, 1, 3, 4)), Rollout::Running(text) if text.contains("1 of 3")));
        assert!(matches!(rollout(&deployment(2, 3, 3, 4)), Rollout::Running(_)), "an old pod is still there");
        assert_eq!(rollout(&deployment(2, 3, 3, 3)), Rollout::Done);
        let mut stuck = deployment(2, 1, 2, 4);
        stuck["status"]["conditions"] = json!([{ "type": "Progressing", "reason": "ProgressDeadlineExceeded",
            "message": "has timed out progressing" }]);
        assert_eq!(rollout(&stuck), Rollout::Stuck("has timed out progressing".to_owned()));
        let daemons = json!({ "kind": "DaemonSet", "metadata": { "generation": 1 }, "spec": {}, "status": {
            "observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2 } });
        assert_eq!(rollout(&daemons), Rollout::Done);
    }

    #[test]
    fn differences_name_containers_and_hide_variables() {
        let before = json!({ "spec": { "replicas": 2, "containers": [{ "name": "app", "image": "shop:1",
            "env": [{ "name": "TOKEN", "value": "a" }] }] } });
        let mut after = before.clone();
        after["spec"]["containers"][0]["image"] = json!("shop:2");
        after["spec"]["containers"][0]["env"][0]["value"] = json!("canary");
        after["spec"]["replicas"] = json!(3);
        assert_eq!(
            differences(&before, &after),
            [
                "spec.containers[app].env[TOKEN].value: (a value) → (a value)",
                "spec.containers[app].image: shop:1 → shop:2",
                "spec.replicas: 2 → 3"
            ]
        );
        assert!(differences(&before, &before).is_empty());
    }
}
