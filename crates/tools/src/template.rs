//! Declared operations: named, typed arguments, and templates that they are put into.
//!
//! Problem: operators must be able to add an operation without code, and a model fills in its arguments. Model: an
//! argument has a type with bounds, from which the JSON Schema is made; a template is a text with `{name}` in it. What
//! is put in stays one word, one path segment, one JSON value: the caller of a template decides how it is encoded.
//! Guarantee: a template names only declared arguments, and an argument cannot become another word, option or path.

use std::collections::BTreeMap;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wardroom_respond::{Operation, Risk, ToolError};

use crate::SettingError;

/// Default of [`Argument::max_length`].
const DEFAULT_MAX_LENGTH: u32 = 200;
/// Name of the idempotency key in templates.
pub(crate) const KEY: &str = "key";

/// A declared argument.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Argument {
    /// What it means, with its unit.
    pub description: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ArgumentType,
    /// For `text`: regular expression that it matches as a whole.
    #[serde(default)]
    pub pattern: Option<String>,
    /// For `text`: longest, in characters. Default 200.
    #[serde(default)]
    pub max_length: Option<u32>,
    /// For `choice`: the texts.
    #[serde(default)]
    pub values: Option<Vec<String>>,
    /// For `integer`: least value.
    #[serde(default)]
    pub minimum: Option<i64>,
    /// For `integer`: largest value.
    #[serde(default)]
    pub maximum: Option<i64>,
}

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ArgumentType {
    /// Text that matches a pattern.
    Text,
    /// One of several texts.
    Choice,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
}

impl Argument {
    fn schema(&self) -> Value {
        let mut schema = match self.kind {
            ArgumentType::Text => {
                let pattern = anchored(self.pattern.as_deref().unwrap_or_default());
                let max_length = self.max_length.unwrap_or(DEFAULT_MAX_LENGTH);
                json!({ "type": "string", "pattern": pattern, "maxLength": max_length })
            }
            ArgumentType::Choice => json!({ "enum": self.values }),
            ArgumentType::Integer => {
                json!({ "type": "integer", "minimum": self.minimum, "maximum": self.maximum })
            }
            ArgumentType::Boolean => json!({ "type": "boolean" }),
        };
        schema["description"] = self.description.clone().into();
        schema
    }

    /// Checks that there are the bounds of the type, and no others.
    fn check(&self, field: &str) -> Result<(), SettingError> {
        let wrong = |name: &str, reason: &str| Err(SettingError::new(format!("{field}.{name}"), reason));
        let of_type = |kind: ArgumentType| self.kind == kind;
        for (name, is_there, is_wanted) in [
            ("pattern", self.pattern.is_some(), of_type(ArgumentType::Text)),
            ("values", self.values.is_some(), of_type(ArgumentType::Choice)),
            ("minimum", self.minimum.is_some(), of_type(ArgumentType::Integer)),
            ("maximum", self.maximum.is_some(), of_type(ArgumentType::Integer)),
        ] {
            match (is_there, is_wanted) {
                (false, true) => return wrong(name, "the type needs this bound"),
                (true, false) => return wrong(name, "the type does not have this bound"),
                _ => {}
            }
        }
        if self.pattern.as_ref().is_some_and(|pattern| Regex::new(&anchored(pattern)).is_err()) {
            return wrong("pattern", "it is not a regular expression");
        }
        if self.max_length.is_some_and(|most| !of_type(ArgumentType::Text) || !(1..=10_000).contains(&most)) {
            return wrong("max-length", "it is for texts, and must be 1 to 10000");
        }
        if self.values.as_ref().is_some_and(Vec::is_empty) {
            return wrong("values", "there must be at least one");
        }
        if self.minimum > self.maximum {
            return wrong("minimum", "it is larger than maximum");
        }
        Ok(())
    }
}

fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// Returns the risk of what is declared without one.
pub(crate) const fn default_risk() -> Risk {
    Risk::High
}

/// Checks declared arguments.
pub(crate) fn check_arguments(arguments: &BTreeMap<String, Argument>, field: &str) -> Result<(), SettingError> {
    for (name, argument) in arguments {
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !is_name || name == KEY {
            let reason = "the name of an argument has lower-case letters, digits and _, and is not `key`";
            return Err(SettingError::new(field, reason));
        }
        argument.check(&format!("{field}.{name}"))?;
    }
    Ok(())
}

/// Describes a declared operation.
pub(crate) fn declared_operation(
    name: &str,
    summary: &str,
    arguments: &BTreeMap<String, Argument>,
    (risk, read_only, reversible): (Risk, bool, bool),
) -> Operation {
    let properties: Map<String, Value> =
        arguments.iter().map(|(name, argument)| (name.clone(), argument.schema())).collect();
    let required: Vec<&String> = arguments.keys().collect();
    let schema =
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    Operation { name: name.to_owned(), summary: summary.to_owned(), arguments: schema, risk, read_only, reversible }
}

/// Returns the names in a template.
pub(crate) fn names(template: &str) -> Result<Vec<&str>, String> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find(['{', '}']) {
        let after = rest.get(start + 1..).unwrap_or_default();
        let end = after.find('}').filter(|_| rest.get(start..=start) == Some("{"));
        let end = end.ok_or("a { or } is not one of a pair; an argument is written {name}")?;
        names.push(after.get(..end).unwrap_or_default());
        rest = after.get(end + 1..).unwrap_or_default();
    }
    Ok(names)
}

/// Checks that a template names only declared arguments; the idempotency key counts as one if `with_key`.
pub(crate) fn check_template(
    template: &str,
    arguments: &BTreeMap<String, Argument>,
    with_key: bool,
    field: &str,
) -> Result<(), SettingError> {
    let names = names(template).map_err(|reason| SettingError::new(field, reason))?;
    let is_known = |name: &&str| arguments.contains_key(*name) || (with_key && *name == KEY);
    if names.iter().all(is_known) {
        return Ok(());
    }
    let key = if with_key { " or {key}" } else { "" };
    Err(SettingError::new(field, format!("it names an argument that is not declared{key}")))
}

/// Values of the arguments of a call, as texts, with the idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    values: BTreeMap<String, Value>,
}

impl Values {
    pub(crate) fn new(arguments: &Map<String, Value>, key: Option<&str>) -> Self {
        let mut values: BTreeMap<String, Value> =
            arguments.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Some(key) = key {
            values.insert(KEY.to_owned(), key.into());
        }
        Self { values }
    }

    /// Fills a template; `encode` is applied to every value, and not to the text around it.
    pub(crate) fn fill(&self, template: &str, encode: impl Fn(&str) -> String) -> Result<String, ToolError> {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            text += before;
            text += &encode(&self.text(name)?);
            rest = after;
        }
        Ok(text + rest)
    }

    /// Fills the texts of a JSON template. A text that is nothing but `{name}` becomes the value itself.
    pub(crate) fn fill_json(&self, template: &Value) -> Result<Value, ToolError> {
        Ok(match template {
            Value::String(text) => {
                let whole = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                match whole.filter(|name| !name.contains(['{', '}'])) {
                    Some(name) => self.value(name)?.clone(),
                    None => Value::String(self.fill(text, str::to_owned)?),
                }
            }
            Value::Array(items) => items.iter().map(|item| self.fill_json(item)).collect::<Result<_, _>>()?,
            Value::Object(fields) => {
                let filled = fields.iter().map(|(name, value)| Ok((name.clone(), self.fill_json(value)?)));
                Value::Object(filled.collect::<Result<_, ToolError>>()?)
            }
            other => other.clone(),
        })
    }

    fn value(&self, name: &str) -> Result<&Value, ToolError> {
        self.values.get(name).ok_or_else(|| ToolError::Invalid(format!("the argument {name:?} is missing")))
    }

    fn text(&self, name: &str) -> Result<String, ToolError> {
        Ok(match self.value(name)? {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(mut fields: Value) -> Argument {
        fields["description"] = "for the test".into();
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn a_template_names_declared_arguments_only() {
        let text = || argument(json!({ "type": "text", "pattern": "[a-z]+" }));
        let arguments = BTreeMap::from([("name".to_owned(), text())]);
        for (template, with_key, valid) in [
            ("plain", false, true),
            ("{name}", false, true),
            ("a{name}b{name}", false, true),
            ("{other}", false, false),
            ("{key}", false, false),
            ("{key}", true, true),
            ("{name", false, false),
            ("name}", false, false),
            ("{}", false, false),
            ("{{name}}", false, false),
        ] {
            assert_eq!(check_template(template, &arguments, with_key, "f").is_ok(), valid, "{template}");
        }
        assert!(check_arguments(&arguments, "f").is_ok());
        for name in ["key", "", "A", "a b"] {
            assert!(check_arguments(&BTreeMap::from([(name.to_owned(), text())]), "f").is_err(), "{name}");
        }
    }

    #[test]
    fn values_are_put_in_once_and_encoded_by_themselves() {
        let arguments = json!({ "a": "x{b}", "b": 7, "c": true });
        let values = Values::new(arguments.as_object().unwrap(), Some("k"));
        assert_eq!(values.fill("{a}-{b}-{key}", |text| format!("<{text}>")).unwrap(), "<x{b}>-<7>-<k>");
        let filled = values.fill_json(&json!({ "n": "{b}", "t": "{b}.", "l": ["{c}"], "o": 1 })).unwrap();
        assert_eq!(filled, json!({ "n": 7, "t": "7.", "l": [true], "o": 1 }));
        assert!(values.fill("{d}", str::to_owned).is_err());
    }

    #[test]
    fn the_schema_of_an_argument_has_its_bounds() {
        let arguments = BTreeMap::from([
            ("a".to_owned(), argument(json!({ "type": "integer", "minimum": 1, "maximum": 9 }))),
            ("b".to_owned(), argument(json!({ "type": "text", "pattern": "a|b", "max-length": 3 }))),
            ("c".to_owned(), argument(json!({ "type": "choice", "values": ["x"] }))),
            ("d".to_owned(), argument(json!({ "type": "boolean" }))),
        ]);
        assert!(check_arguments(&arguments, "f").is_ok());
        for wrong in [
            json!({ "type": "text" }),
            json!({ "type": "text", "pattern": "(" }),
            json!({ "type": "text", "pattern": "a", "minimum": 1 }),
            json!({ "type": "integer", "minimum": 1 }),
            json!({ "type": "integer", "minimum": 2, "maximum": 1 }),
            json!({ "type": "choice", "values": [] }),
            json!({ "type": "boolean", "max-length": 3 }),
        ] {
            assert!(argument(wrong.clone()).check("f").is_err(), "{wrong}");
        }
        let schema = declared_operation("o", "s", &arguments, (Risk::Low, false, false)).arguments;
        assert_eq!((crate::schema::unknown_keywords(&schema), crate::schema::unbounded(&schema)), (vec![], vec![]));
        let check = |value: Value| crate::schema::check(&schema, &value).is_ok();
        assert!(check(json!({ "a": 9, "b": "b", "c": "x", "d": false })));
        for wrong in
            [json!({ "a": 10, "b": "b", "c": "x", "d": false }), json!({ "a": 9, "b": "ab", "c": "x", "d": false })]
        {
            assert!(!check(wrong.clone()), "{wrong}: the pattern is anchored around all its alternatives");
        }
    }
}
