//! Placeholders in the calls of runbooks: `{{service}}`, `{{setting.key}}`, `{{setting.from}}`.
//!
//! A text that is nothing but a placeholder becomes the value, whatever it is. Within a longer text, such as a query,
//! only values of plain characters are put in: they come from telemetry, which may have anything.

use serde_json::{Map, Value};
use wardroom_domain::{Cause, ToolCall};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// The names of all placeholders.
const NAMES: [&str; 3] = ["service", "setting.key", "setting.from"];
/// Characters, beside letters and digits, of values within a longer text.
const PLAIN: &str = "._-/:@";

/// A part of a text.
enum Part<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

/// Returns a call with its placeholders filled.
///
/// # Errors
/// Returns which placeholder has no value.
pub(crate) fn fill(call: &ToolCall, cause: &Cause) -> Result<ToolCall, String> {
    let target = fill_text(&call.target, cause)?;
    let arguments = call.arguments.iter().map(|(key, value)| Ok((key.clone(), fill_value(value, cause)?)));
    let arguments = arguments.collect::<Result<Map<_, _>, String>>()?;
    Ok(ToolCall { tool: call.tool.clone(), operation: call.operation.clone(), target, arguments })
}

/// Returns the first unknown placeholder of a call, after the field that has it.
pub(crate) fn unknown_in(call: &ToolCall) -> Option<String> {
    let in_target = unknown_in_text(&call.target).map(|name| format!("target: {}", unknown(name)));
    in_target.or_else(|| {
        let mut arguments = call.arguments.iter();
        arguments.find_map(|(key, value)| Some(format!("arguments.{key}: {}", unknown(unknown_in_value(value)?))))
    })
}

fn unknown(name: &str) -> String {
    format!(
        "{OPEN}{name}{CLOSE} is not known; there are {}",
        NAMES.map(|name| format!("{OPEN}{name}{CLOSE}")).join(", ")
    )
}

fn unknown_in_value(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => unknown_in_text(text),
        Value::Array(items) => items.iter().find_map(unknown_in_value),
        Value::Object(map) => map.values().find_map(unknown_in_value),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn unknown_in_text(text: &str) -> Option<&str> {
    parts(text).into_iter().find_map(|part| match part {
        Part::Placeholder(name) if !NAMES.contains(&name) => Some(name),
        Part::Placeholder(_) | Part::Text(_) => None,
    })
}

fn fill_value(value: &Value, cause: &Cause) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill_text(text, cause)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| fill_value(item, cause)).collect::<Result<_, _>>()?)
        }
        Value::Object(map) => {
            let filled = map.iter().map(|(key, item)| Ok((key.clone(), fill_value(item, cause)?)));
            Value::Object(filled.collect::<Result<_, String>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

fn fill_text(text: &str, cause: &Cause) -> Result<String, String> {
    let parts = parts(text);
    if let [Part::Placeholder(name)] = parts.as_slice() {
        return value_of(name, cause);
    }
    let is_plain = |value: &str| value.chars().all(|c| c.is_alphanumeric() || PLAIN.contains(c));
    let mut filled = String::new();
    for part in parts {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Placeholder(name) => {
                let value = value_of(name, cause)?;
                if !is_plain(&value) {
                    return Err(format!("{OPEN}{name}{CLOSE} is {value:?}, which does not belong into a longer text"));
                }
                filled.push_str(&value);
            }
        }
    }
    Ok(filled)
}

fn value_of(name: &str, cause: &Cause) -> Result<String, String> {
    let value = match name {
        "service" => Some(&cause.entity.name),
        "setting.key" => cause.setting.as_ref().map(|(key, _, _)| key),
        "setting.from" => cause.setting.as_ref().map(|(_, from, _)| from),
        _ => None,
    };
    value.cloned().ok_or_else(|| format!("it needs {OPEN}{name}{CLOSE}, which the diagnosis does not have"))
}

/// Splits a text. What is opened and not closed is text.
fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once(OPEN)
        && let Some((name, behind)) = after.split_once(CLOSE)
    {
        if !before.is_empty() {
            found.push(Part::Text(before));
        }
        found.push(Part::Placeholder(name.trim()));
        rest = behind;
    }
    if !rest.is_empty() {
        found.push(Part::Text(rest));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use wardroom_domain::Entity;

    use super::*;

    fn call(target: &str, argument: &str) -> ToolCall {
        let arguments = json!({ "query": argument, "list": [argument], "number": 1 });
        let arguments = arguments.as_object().cloned().unwrap();
        ToolCall { tool: "t".into(), operation: "o".into(), target: target.into(), arguments }
    }

    fn cause(service: &str) -> Cause {
        let setting = Some(("pool".to_owned(), "20".to_owned(), "1".to_owned()));
        Cause { setting, ..Cause::new(Entity::service(service), "bad-setting", 0.9) }
    }

    #[test]
    fn values_are_put_in_alone_and_within_a_text() {
        let filled =
            fill(&call("{{service}}", "up{job=\"{{ service }}\"} > {{setting.from}}"), &cause("cart")).unwrap();
        assert_eq!(filled, call("cart", "up{job=\"cart\"} > 20"));
        let odd = cause("a\"} or vector(1)");
        assert_eq!(fill(&call("{{service}}", "{{service}}"), &odd).unwrap().target, odd.entity.name);
        let error = fill(&call("a", "up{job=\"{{service}}\"}"), &odd).unwrap_err();
        assert!(error.contains("does not belong into a longer text"), "{error}");
        let without = Cause::new(Entity::service("cart"), "cpu-hog", 0.9);
        assert!(fill(&call("a", "{{setting.key}}"), &without).unwrap_err().contains("{{setting.key}}"));
    }

    #[test]
    fn unknown_placeholders_are_named_with_their_field() {
        assert_eq!(unknown_in(&call("{{service}}", "{{setting.from}} {{")), None);
        assert!(unknown_in(&call("{{servce}}", "a")).unwrap().starts_with("target: {{servce}} is not known"));
        assert!(unknown_in(&call("a", "b {{x}}")).unwrap().starts_with("arguments."));
    }

    proptest! {
        #[test]
        fn text_without_placeholders_stays(text in "[^{}]*") {
            prop_assert_eq!(fill(&call(&text, &text), &cause("cart")).unwrap(), call(&text, &text));
        }
    }
}
