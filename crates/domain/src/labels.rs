//! Label sets and the matchers that select them, as Prometheus has them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// The label that holds a series' metric name.
pub const NAME: &str = "__name__";

/// A sorted set of label pairs; cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(String, String)]>);

impl Labels {
    /// Sorts the pairs by name. A name that comes twice keeps its first value; empty values are
    /// dropped, as Prometheus treats an empty label as an absent one.
    pub fn new(mut pairs: Vec<(String, String)>) -> Self {
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        Self(pairs.into())
    }

    /// From string slices, for tests and internal series.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The value of one label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok().map(|at| self.0[at].1.as_str())
    }

    /// The metric name, or nothing.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or_default()
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same set without the labels that `drop` names.
    #[must_use]
    pub fn without(&self, drop: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| !drop.contains(&name.as_str())).cloned().collect())
    }

    /// The same set with one label set to `value`.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut pairs: Vec<_> = self.0.iter().filter(|(key, _)| key != name).cloned().collect();
        pairs.push((name.to_owned(), value.to_owned()));
        Self::new(pairs)
    }
}

impl fmt::Display for Labels {
    /// As promtool writes it: `{__name__="up", job="node"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={}", quote(value))?;
        }
        f.write_str("}")
    }
}

/// Quotes as Go's `strconv.Quote` does, so that dumps compare byte for byte with promtool's.
fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(Self::new(map.into_iter().collect()))
    }
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The value it is compared with.
    pub value: String,
    /// True for `=`, false for `!=`.
    pub equal: bool,
}

impl Matcher {
    /// Whether a label set meets the condition; an absent label counts as the empty string.
    pub fn matches(&self, labels: &Labels) -> bool {
        (labels.get(&self.name).unwrap_or_default() == self.value) == self.equal
    }

    /// Reads a selector such as `up{job="node",env!="dev"}`.
    ///
    /// # Errors
    /// Names the part that could not be read. Regular-expression matchers come with the receiver.
    pub fn parse_selector(text: &str) -> Result<Vec<Self>, String> {
        let text = text.trim();
        let (name, rest) = match text.split_once('{') {
            Some((name, rest)) => {
                let body =
                    rest.strip_suffix('}').ok_or_else(|| format!("selector {text:?} lacks its closing brace"))?;
                (name.trim(), body)
            }
            None => (text, ""),
        };
        let mut matchers = Vec::new();
        if !name.is_empty() {
            matchers.push(Self { name: NAME.to_owned(), value: name.to_owned(), equal: true });
        }
        let mut rest = rest.trim();
        while !rest.is_empty() {
            let at = rest.find(['=', '!']).ok_or_else(|| format!("matcher {rest:?} lacks = or !="))?;
            let (label, tail) = rest.split_at(at);
            let (equal, tail) = match (tail.strip_prefix("!="), tail.strip_prefix("=~"), tail.strip_prefix("=")) {
                (Some(tail), _, _) => (false, tail),
                (None, None, Some(tail)) => (true, tail),
                _ => return Err(format!("matcher {rest:?}: only = and != are understood")),
            };
            let mut parts = serde_json::Deserializer::from_str(tail).into_iter::<String>();
            let value = match parts.next() {
                Some(Ok(value)) => value,
                _ => return Err(format!("matcher {rest:?}: the value must stand in double quotes")),
            };
            matchers.push(Self { name: label.trim().to_owned(), value, equal });
            rest = tail.get(parts.byte_offset()..).unwrap_or_default().trim();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim();
        }
        if matchers.is_empty() {
            return Err("an empty selector would match everything; name at least one label".to_owned());
        }
        Ok(matchers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shows_as_promtool_does() {
        let labels = Labels::of(&[("job", "t"), (NAME, "g"), ("q", "a\"b\n")]);
        assert_eq!(labels.to_string(), r#"{__name__="g", job="t", q="a\"b\n"}"#);
    }

    #[test]
    fn selectors_parse_and_match() {
        let labels = Labels::of(&[(NAME, "up"), ("job", "node, 1"), ("env", "prod")]);
        let matchers = Matcher::parse_selector(r#"up{job="node, 1", env!="dev"}"#).unwrap();
        assert_eq!(matchers.len(), 3);
        assert!(matchers.iter().all(|matcher| matcher.matches(&labels)));
        assert!(Matcher::parse_selector("{}").is_err());
        assert!(Matcher::parse_selector("up{job=~\"x\"}").is_err());
        assert!(Matcher::parse_selector("up{job").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_a_clear_no(text in ".*", label in "[a-z]{1,4}", value in ".*") {
            if let Err(error) = Matcher::parse_selector(&text) {
                prop_assert!(!error.is_empty());
            }
            let written = Labels::of(&[(NAME, "m"), (&label, &value)]);
            let parsed = Matcher::parse_selector(&written.to_string());
            if let Ok(matchers) = parsed {
                prop_assert!(matchers.iter().all(|matcher| matcher.matches(&written)), "{written}");
            }
        }
    }
}
