//! Read-only checks of a runbook, and the conditions on their results that choose an action.
//!
//! Problem: which action fits often depends on something that telemetry does not have, such as how many connections
//! are idle. Model: checks read it from the target first; their results are evidence, and each action may have
//! conditions on them. Guarantee: a condition about a result that is missing or of another type is neither true nor
//! false, and then no action is chosen: a person decides.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::ToolCall;
use crate::time::Timestamp;

/// Longest text of a result in evidence, in characters.
const MAX_SHOWN_CHARS: usize = 300;

/// A check: an operation that only reads. Persisted: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadCheck {
    /// Its name within the runbook.
    pub id: String,
    /// What it answers, for people.
    pub question: String,
    /// The call.
    pub call: ToolCall,
}

/// The result of a check. Persisted: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it was read, by the wall clock.
    pub at: Timestamp,
    /// What was read; `None` if it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CheckResult {
    /// Returns the result as one short line.
    pub fn summary(&self) -> String {
        let text = match (&self.value, &self.error) {
            (Some(value), _) => value.to_string(),
            (None, Some(error)) => format!("not known: {error}"),
            (None, None) => "not known".to_owned(),
        };
        match text.char_indices().nth(MAX_SHOWN_CHARS) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// A comparison of a value in a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Is this value.
    Equals(Value),
    /// Is another value.
    NotEquals(Value),
    /// Is a number above this one.
    Above(f64),
    /// Is a number of at least this one.
    AtLeast(f64),
    /// Is a number below this one.
    Below(f64),
    /// Is a number of at most this one.
    AtMost(f64),
    /// Is a text that contains this one, or a list with this item.
    Contains(String),
    /// Is there, or is not.
    Exists(bool),
}

/// A condition on the result of a check. Persisted: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Name of the check.
    pub read: String,
    /// JSON pointer of the value in the result; empty for all of it.
    #[serde(default)]
    pub value: String,
    /// What is asked about it.
    pub comparison: Comparison,
}

impl Condition {
    /// Returns whether a result fulfils the condition; `None` if that cannot be told.
    pub fn holds(&self, result: &Value) -> Option<bool> {
        let found = result.pointer(&self.value);
        if let Comparison::Exists(expected) = &self.comparison {
            return Some(found.is_some_and(|value| !value.is_null()) == *expected);
        }
        let found = found?;
        let compared = |compare: fn(&f64, &f64) -> bool, limit: &f64| number_of(found).map(|it| compare(&it, limit));
        match &self.comparison {
            Comparison::Equals(expected) => Some(is_same(found, expected)),
            Comparison::NotEquals(expected) => Some(!is_same(found, expected)),
            Comparison::Above(limit) => compared(f64::gt, limit),
            Comparison::AtLeast(limit) => compared(f64::ge, limit),
            Comparison::Below(limit) => compared(f64::lt, limit),
            Comparison::AtMost(limit) => compared(f64::le, limit),
            Comparison::Contains(part) => match found {
                Value::String(text) => Some(text.contains(part.as_str())),
                Value::Array(items) => Some(items.iter().any(|item| item.as_str() == Some(part))),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
            },
            Comparison::Exists(_) => None,
        }
    }

    /// Returns the condition as people read it, such as `connections/idle above 50`.
    pub fn describe(&self) -> String {
        let comparison = match &self.comparison {
            Comparison::Equals(value) => format!("is {value}"),
            Comparison::NotEquals(value) => format!("is not {value}"),
            Comparison::Above(limit) => format!("above {limit}"),
            Comparison::AtLeast(limit) => format!("at least {limit}"),
            Comparison::Below(limit) => format!("below {limit}"),
            Comparison::AtMost(limit) => format!("at most {limit}"),
            Comparison::Contains(part) => format!("contains {part:?}"),
            Comparison::Exists(true) => "is there".to_owned(),
            Comparison::Exists(false) => "is not there".to_owned(),
        };
        format!("{}{} {comparison}", self.read, self.value)
    }
}

/// What a runbook does under some conditions. Persisted: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionChoice {
    /// The conditions; all of them must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// The calls, in order; at least one.
    pub steps: Vec<ToolCall>,
}

/// The number that a value stands for: a number, a text that is one (as Prometheus writes them), the length of a list.
fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(items) => Some(items.len() as f64),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    };
    number.filter(|number| !number.is_nan())
}

/// Compares by value: 1 is 1.0, and "1" is 1.
fn is_same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(_) | Value::String(_), Value::Number(_)) => number_of(found) == number_of(expected),
        _ => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(comparison: Comparison, pointer: &str, result: &Value) -> Option<bool> {
        Condition { read: "c".into(), value: pointer.into(), comparison }.holds(result)
    }

    #[test]
    fn a_missing_or_odd_value_is_neither_true_nor_false() {
        let result = json!({ "idle": 51, "load": "0.75", "state": "degraded", "peers": ["a", "b"], "none": null });
        let cases = [
            (Comparison::Above(50.0), "/idle", Some(true)),
            (Comparison::Above(51.0), "/idle", Some(false)),
            (Comparison::AtLeast(51.0), "/idle", Some(true)),
            (Comparison::AtMost(51.0), "/idle", Some(true)),
            (Comparison::Below(1.0), "/load", Some(true)),
            (Comparison::Above(1.0), "/peers", Some(true)),
            (Comparison::Above(1.0), "/state", None),
            (Comparison::Above(1.0), "/absent", None),
            (Comparison::Above(1.0), "/none", None),
            (Comparison::Equals(json!(51.0)), "/idle", Some(true)),
            (Comparison::Equals(json!("degraded")), "/state", Some(true)),
            (Comparison::NotEquals(json!("ok")), "/state", Some(true)),
            (Comparison::Equals(json!("ok")), "/absent", None),
            (Comparison::Contains("grad".into()), "/state", Some(true)),
            (Comparison::Contains("b".into()), "/peers", Some(true)),
            (Comparison::Contains("b".into()), "/idle", None),
            (Comparison::Exists(true), "/idle", Some(true)),
            (Comparison::Exists(false), "/absent", Some(true)),
            (Comparison::Exists(true), "/none", Some(false)),
        ];
        for (comparison, pointer, expected) in cases {
            assert_eq!(holds(comparison.clone(), pointer, &result), expected, "{pointer} {comparison:?}");
        }
        assert_eq!(holds(Comparison::Below(f64::INFINITY), "", &json!("NaN")), None);
    }

    #[test]
    fn a_result_is_one_short_line() {
        let at = Timestamp::from_millis(0);
        let read = CheckResult { at, value: Some(json!({ "text": "é".repeat(1000) })), error: None };
        assert_eq!(read.summary().chars().count(), MAX_SHOWN_CHARS + 1);
        let failed = CheckResult { at, value: None, error: Some("refused".into()) };
        assert_eq!(failed.summary(), "not known: refused");
        let condition = Condition { read: "idle".into(), value: "/n".into(), comparison: Comparison::Above(5.0) };
        assert_eq!(condition.describe(), "idle/n above 5");
        let text = serde_json::to_string(&condition).unwrap();
        assert_eq!(text, r#"{"read":"idle","value":"/n","comparison":{"above":5.0}}"#);
        assert_eq!(serde_json::from_str::<Condition>(&text).unwrap(), condition);
    }
}
