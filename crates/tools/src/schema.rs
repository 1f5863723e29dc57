//! Checks values against the part of JSON Schema that arguments and settings use.
//!
//! Problem: the arguments of a call come from a model or from a runbook, and must be within the bounds of the
//! operation before the tool sees them. Model: the keywords below, and no others: a schema with another one is refused
//! where it is registered ([`unknown_keywords`]), so no bound is silently ignored. Guarantee: a reason never repeats
//! the value, which may be a credential.

use regex::Regex;
use serde_json::{Map, Value};

/// Keywords that are checked.
const CHECKED: [&str; 20] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "maxProperties",
    "anyOf",
    "oneOf",
];
/// Keywords that say something to the reader only. `format` repeats the type of a number.
const DESCRIPTIVE: [&str; 7] = ["$schema", "title", "description", "default", "format", "examples", "unit"];

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the value; empty for the whole.
    pub path: String,
    /// Reason; without the value.
    pub reason: String,
}

/// Checks a value.
///
/// # Errors
/// Returns the first problem.
pub fn check(schema: &Value, value: &Value) -> Result<(), Problem> {
    check_at(schema, value, "")
}

fn check_at(schema: &Value, value: &Value, path: &str) -> Result<(), Problem> {
    let Some(schema) = schema.as_object() else {
        return if schema == &Value::Bool(false) { problem(path, "no value is allowed here") } else { Ok(()) };
    };
    check_type(schema, value, path)?;
    check_alternatives(schema, value, path)?;
    match value {
        Value::Object(fields) => check_object(schema, fields, path),
        Value::Array(items) => check_array(schema, items, path),
        Value::String(text) => check_text(schema, text, path),
        Value::Number(_) => check_number(schema, value, path),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn problem(path: &str, reason: impl Into<String>) -> Result<(), Problem> {
    Err(Problem { path: path.to_owned(), reason: reason.into() })
}

fn check_type(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), Problem> {
    let allowed: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let fits = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    };
    if allowed.iter().any(fits) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().filter(|name| **name != "null").map(|name| type_name(name)).collect();
    let quotes = if names == ["text"] && (value.is_number() || value.is_boolean()) { "; put it in quotes" } else { "" };
    problem(path, format!("the value must be {}{quotes}", names.join(" or ")))
}

fn type_name(name: &str) -> &str {
    match name {
        "boolean" => "true or false",
        "object" => "a mapping with fields",
        "array" => "a list",
        "string" => "text",
        "number" => "a number",
        "integer" => "a whole number",
        other => other,
    }
}

fn check_alternatives(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), Problem> {
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(value)
    {
        return problem(path, format!("the value must be one of {}", list(allowed)));
    }
    if let Some(expected) = schema.get("const")
        && expected != value
    {
        return problem(path, format!("the value must be {expected}"));
    }
    for keyword in ["anyOf", "oneOf"] {
        let Some(Value::Array(alternatives)) = schema.get(keyword) else { continue };
        let failures: Vec<Problem> =
            alternatives.iter().filter_map(|alternative| check_at(alternative, value, path).err()).collect();
        if failures.len() < alternatives.len() {
            continue;
        }
        let names: Vec<Value> = alternatives.iter().filter_map(|one| one.get("const").cloned()).collect();
        if names.len() == alternatives.len() {
            return problem(path, format!("the value must be one of {}", list(&names)));
        }
        // The alternative that failed deepest is the one that was meant.
        let deepest = failures.into_iter().max_by_key(|failure| failure.path.len());
        return Err(deepest.unwrap_or(Problem { path: path.to_owned(), reason: "no alternative fits".to_owned() }));
    }
    Ok(())
}

fn list(values: &[Value]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn check_object(schema: &Map<String, Value>, fields: &Map<String, Value>, path: &str) -> Result<(), Problem> {
    let empty = Map::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(name) = strings(schema.get("required")).find(|name| !fields.contains_key(*name)) {
        return problem(&below(name), "the field is missing");
    }
    if exceeds(schema, "maxProperties", fields.len()) {
        return problem(path, "there are too many entries");
    }
    for (name, value) in fields {
        match (known.get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => check_at(schema, value, &below(name))?,
            (None, Some(Value::Bool(false))) => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                let there_are = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
                return problem(path, format!("there is a field that is not known; the fields are: {there_are}"));
            }
            (None, Some(schema)) => check_at(schema, value, &below(name))?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn check_array(schema: &Map<String, Value>, items: &[Value], path: &str) -> Result<(), Problem> {
    if exceeds(schema, "maxItems", items.len()) {
        return problem(path, format!("it has more than {} entries", schema["maxItems"]));
    }
    if schema.get("minItems").and_then(Value::as_u64).is_some_and(|least| (items.len() as u64) < least) {
        return problem(path, format!("it has fewer than {} entries", schema["minItems"]));
    }
    if schema.get("uniqueItems") == Some(&Value::Bool(true))
        && items.iter().enumerate().any(|(index, item)| items.iter().take(index).any(|other| other == item))
    {
        return problem(path, "it has an entry twice");
    }
    let Some(item_schema) = schema.get("items") else { return Ok(()) };
    items.iter().enumerate().try_for_each(|(index, item)| check_at(item_schema, item, &format!("{path}[{index}]")))
}

fn check_text(schema: &Map<String, Value>, text: &str, path: &str) -> Result<(), Problem> {
    let length = text.chars().count();
    if exceeds(schema, "maxLength", length) {
        return problem(path, format!("it has {length} characters; at most {} are allowed", schema["maxLength"]));
    }
    if schema.get("minLength").and_then(Value::as_u64).is_some_and(|least| (length as u64) < least) {
        return problem(path, format!("it has {length} characters; at least {} are needed", schema["minLength"]));
    }
    let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else { return Ok(()) };
    match Regex::new(pattern) {
        Ok(regex) if regex.is_match(text) => Ok(()),
        Ok(_) => problem(path, format!("it does not match the pattern {pattern}")),
        Err(_) => problem(path, "its pattern in the schema is not valid"),
    }
}

fn check_number(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), Problem> {
    let Some(number) = value.as_f64() else { return problem(path, "the number is too large") };
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let fails = [
        ("minimum", bound("minimum").is_some_and(|least| number < least), "at least"),
        ("maximum", bound("maximum").is_some_and(|most| number > most), "at most"),
        ("exclusiveMinimum", bound("exclusiveMinimum").is_some_and(|least| number <= least), "more than"),
        ("exclusiveMaximum", bound("exclusiveMaximum").is_some_and(|most| number >= most), "less than"),
    ];
    match fails.iter().find(|(_, fails, _)| *fails) {
        Some((keyword, _, words)) => problem(path, format!("the number must be {words} {}", schema[*keyword])),
        None => Ok(()),
    }
}

fn exceeds(schema: &Map<String, Value>, keyword: &str, length: usize) -> bool {
    schema.get(keyword).and_then(Value::as_u64).is_some_and(|most| length as u64 > most)
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Returns the keywords of a schema, at any depth, that are not checked.
pub fn unknown_keywords(schema: &Value) -> Vec<String> {
    let Some(schema) = schema.as_object() else { return Vec::new() };
    let mut unknown: Vec<String> = schema
        .keys()
        .filter(|key| !CHECKED.contains(&key.as_str()) && !DESCRIPTIVE.contains(&key.as_str()))
        .cloned()
        .collect();
    for part in parts(schema) {
        unknown.extend(unknown_keywords(part.1));
    }
    unknown
}

/// Returns the paths of texts, numbers and lists in a schema without an upper bound.
pub fn unbounded(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect_unbounded(schema, "", &mut found);
    found
}

fn collect_unbounded(schema: &Value, path: &str, found: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else {
        if schema != &Value::Bool(false) {
            found.push(path.to_owned());
        }
        return;
    };
    let has = |keyword: &str| schema.contains_key(keyword);
    let is = |name: &str| match schema.get("type") {
        Some(Value::String(found)) => found == name,
        Some(Value::Array(names)) => names.iter().any(|found| found == name),
        _ => false,
    };
    let is_fixed = has("enum") || has("const");
    let lacks_bound = (is("string") && !has("maxLength"))
        || ((is("integer") || is("number")) && !(has("maximum") || has("exclusiveMaximum")))
        || (is("array") && !has("maxItems"))
        || (is("object") && schema.get("additionalProperties") != Some(&Value::Bool(false)) && !has("maxProperties"));
    if lacks_bound && !is_fixed {
        found.push(path.to_owned());
    }
    for (name, part) in parts(schema) {
        if part != &Value::Bool(false) {
            collect_unbounded(part, &format!("{path}/{name}"), found);
        }
    }
}

/// Returns the schemas within a schema.
fn parts(schema: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut parts = Vec::new();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        parts.extend(properties.iter().map(|(name, schema)| (name.clone(), schema)));
    }
    for keyword in ["items", "additionalProperties"] {
        parts.extend(schema.get(keyword).map(|schema| (keyword.to_owned(), schema)));
    }
    for keyword in ["anyOf", "oneOf"] {
        let alternatives = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
        parts.extend(alternatives.map(|schema| (keyword.to_owned(), schema)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_outside_the_bounds_are_refused_by_path_and_without_the_value() {
        let schema = json!({ "type": "object", "required": ["name"], "additionalProperties": false, "properties": {
            "name": { "type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$" },
            "count": { "type": ["integer", "null"], "minimum": 1, "exclusiveMaximum": 10 },
            "share": { "type": "number", "maximum": 0.5 },
            "mode": { "oneOf": [{ "const": "slow" }, { "const": "fast" }] },
            "kind": { "enum": ["a", "b"] },
            "list": { "type": "array", "maxItems": 2, "uniqueItems": true, "items": { "type": "boolean" } },
            "more": { "type": "object", "additionalProperties": { "type": "string" }, "maxProperties": 1 },
        } });
        assert_eq!(unknown_keywords(&schema), Vec::<String>::new());
        let ok = json!({ "name": "abc", "count": null, "share": 0.5, "mode": "fast", "kind": "a", "list": [true, false],
            "more": { "a": "b" } });
        assert_eq!(check(&schema, &ok), Ok(()));
        for (value, path, reason) in [
            (json!([]), "", "a mapping with fields"),
            (json!({}), "name", "missing"),
            (json!({ "name": 7 }), "name", "must be text; put it in quotes"),
            (json!({ "name": "a" }), "name", "at least 2"),
            (json!({ "name": "s3kret" }), "name", "at most 5"),
            (json!({ "name": "S3K" }), "name", "pattern"),
            (json!({ "name": "abc", "s3kret": 1 }), "", "the fields are: name, count"),
            (json!({ "name": "abc", "count": 0 }), "count", "at least 1"),
            (json!({ "name": "abc", "count": 10 }), "count", "less than 10"),
            (json!({ "name": "abc", "count": 1.5 }), "count", "a whole number"),
            (json!({ "name": "abc", "share": 0.6 }), "share", "at most 0.5"),
            (json!({ "name": "abc", "mode": "s3kret" }), "mode", "one of slow, fast"),
            (json!({ "name": "abc", "kind": "c" }), "kind", "one of a, b"),
            (json!({ "name": "abc", "list": [true, false, true] }), "list", "more than 2"),
            (json!({ "name": "abc", "list": [true, true] }), "list", "twice"),
            (json!({ "name": "abc", "list": [1] }), "list[0]", "true or false"),
            (json!({ "name": "abc", "more": { "a": 1 } }), "more.a", "text"),
            (json!({ "name": "abc", "more": { "a": "", "b": "" } }), "more", "too many"),
        ] {
            let problem = check(&schema, &value).unwrap_err();
            assert_eq!(problem.path, path, "{value}: {problem:?}");
            assert!(problem.reason.contains(reason) && !problem.reason.contains("s3kret"), "{value}: {problem:?}");
        }
    }

    #[test]
    fn keywords_that_are_not_checked_and_missing_bounds_are_found_at_any_depth() {
        let schema = json!({ "type": "object", "additionalProperties": false, "properties": {
            "a": { "type": "array", "maxItems": 1, "items": { "type": "string", "contentEncoding": "base64" } },
            "b": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
            "c": { "type": "string", "enum": ["x"] },
        } });
        assert_eq!(unknown_keywords(&schema), ["contentEncoding"]);
        assert_eq!(unbounded(&schema), ["/a/items", "/b/anyOf"]);
    }
}
