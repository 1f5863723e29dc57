//! Prometheus label sets.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// The label with the metric name of a series.
pub const NAME_LABEL: &str = "__name__";

/// A sorted set of label pairs in one allocation; cheap to clone.
///
/// Encoding: name and value of each pair in turn, each preceded by its length in bytes as base-64 digits (one character
/// per six bits, lowest first, 0x40 set on all but the last). A vector of string pairs would need four times the
/// memory.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Labels {
    /// Creates a set sorted by name. A duplicate name keeps its first value; empty values are dropped, because
    /// Prometheus treats an empty label as absent.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(mut pairs: Vec<(N, V)>) -> Self {
        pairs.retain(|(_, value)| !value.as_ref().is_empty());
        pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        pairs.dedup_by(|later, earlier| later.0.as_ref() == earlier.0.as_ref());
        let mut text = String::with_capacity(256);
        for (name, value) in &pairs {
            push_part(&mut text, name.as_ref());
            push_part(&mut text, value.as_ref());
        }
        Self(text.into())
    }

    /// Creates a set from string slices, for tests and internal series.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self::new(pairs.to_vec())
    }

    /// Returns the value of a label.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the metric name; empty if absent.
    pub fn name(&self) -> &str {
        self.get(NAME_LABEL).unwrap_or_default()
    }

    /// Iterates over all pairs, sorted by name.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || Some((take_part(&mut rest)?, take_part(&mut rest)?)))
    }

    /// Returns the encoded set; equal sets have equal bytes. For hashing only, not a persisted format.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Appends a length-prefixed part.
fn push_part(text: &mut String, part: &str) {
    let mut size = part.len();
    while size > 0x3f {
        text.push(char::from((size & 0x3f) as u8 | 0x40));
        size >>= 6;
    }
    text.push(char::from(size as u8));
    text.push_str(part);
}

/// Removes the first length-prefixed part and returns it.
#[inline]
fn take_part<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (mut size, mut shift) = (0, 0);
    loop {
        let byte = *rest.as_bytes().first()?;
        *rest = rest.get(1..)?;
        size |= usize::from(byte & 0x3f) << shift;
        shift += 6;
        if byte & 0x40 == 0 {
            break;
        }
    }
    let (part, tail) = rest.split_at_checked(size)?;
    *rest = tail;
    Some(part)
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    /// Orders pair by pair, like a list of pairs.
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Labels {
    /// Formats like promtool: `{__name__="up", job="node"}`; names with other characters than letters, digits and
    /// underscores are quoted, as a selector needs them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let name = if is_plain_name(name) { Cow::Borrowed(name) } else { Cow::Owned(quote(name)) };
            write!(f, "{comma}{name}={}", quote(value))?;
        }
        f.write_str("}")
    }
}

/// Returns whether a label name needs no quotes in a selector.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns the label name that an escaped name stands for: `U__k8s_2e_pod` is `k8s.pod`. A name without the prefix
/// `U__`, or with an invalid escape, is returned as it is.
///
/// Clients that cannot write a name into a path escape it: `__` is an underscore, `_2e_` the character with that code.
/// <https://prometheus.io/docs/prometheus/latest/querying/api/#querying-label-values>
pub fn unescape_name(name: &str) -> Cow<'_, str> {
    name.strip_prefix("U__").and_then(unescaped).map_or(Cow::Borrowed(name), Cow::Owned)
}

fn unescaped(mut rest: &str) -> Option<String> {
    let mut out = String::with_capacity(rest.len());
    while let Some((plain, escape)) = rest.split_once('_') {
        out.push_str(plain);
        let (code, tail) = escape.split_once('_')?;
        out.push(match code {
            "" => '_',
            code => hex_character(code)?,
        });
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

/// Returns the character with this code of up to six hexadecimal digits.
fn hex_character(code: &str) -> Option<char> {
    let digits = (1..=6).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(code, 16).ok().and_then(char::from_u32)).flatten()
}

/// Quotes like Go's `strconv.Quote`, so that dumps are identical to promtool's.
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
        // Binary formats require the length.
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn displays_like_promtool() {
        let labels = Labels::of(&[("job", "t"), (NAME_LABEL, "g"), ("q", "a\"b\n")]);
        assert_eq!(labels.to_string(), r#"{__name__="g", job="t", q="a\"b\n"}"#);
    }

    #[test]
    fn names_that_a_selector_cannot_have_bare_are_quoted() {
        let labels = Labels::of(&[(NAME_LABEL, "http.requests"), ("k8s.pod", "a"), ("9", "b"), ("ü\"", "c")]);
        assert_eq!(labels.to_string(), r#"{"9"="b", __name__="http.requests", "k8s.pod"="a", "ü\""="c"}"#);
    }

    #[test]
    fn escaped_names_are_read_like_in_prometheus() {
        for (escaped, name) in [
            ("U__k8s_2e_namespace_2e_name", "k8s.namespace.name"),
            ("U__under__score", "under_score"),
            ("U______name____", "__name__"),
            ("U___00fc_ber_1F600_", "über😀"),
            ("U__", ""),
            ("plain_2e_name", "plain_2e_name"),
            // Invalid escapes.
            ("U__a_", "U__a_"),
            ("U__a_2e", "U__a_2e"),
            ("U__a_xy_", "U__a_xy_"),
            ("U__a_d800_", "U__a_d800_"),
            ("U__a_0000041_", "U__a_0000041_"),
            ("U__a_+41_", "U__a_+41_"),
        ] {
            assert_eq!(unescape_name(escaped), name, "{escaped}");
        }
    }

    proptest! {
        #[test]
        fn any_escaped_name_is_read_back(name in ".{0,9}") {
            let escape = |c: char| match c {
                '_' => "__".to_owned(),
                c if c.is_ascii_alphanumeric() => c.to_string(),
                c => format!("_{:x}_", u32::from(c)),
            };
            let escaped = format!("U__{}", name.chars().map(escape).collect::<String>());
            prop_assert_eq!(unescape_name(&escaped), name);
        }

        #[test]
        fn any_pairs_round_trip_sorted(pairs in prop::collection::btree_map(".{0,5}", "(?s).{1,200}", 0..9)) {
            let labels = Labels::new(pairs.iter().rev().collect());
            let expected: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(labels.iter().collect::<Vec<_>>(), expected.clone());
            for (name, value) in expected {
                prop_assert_eq!(labels.get(name), Some(value));
            }
        }

        #[test]
        fn orders_like_a_list_of_pairs(a in prop::collection::btree_map("[ab]{0,2}", "[ab]{1,70}", 0..3),
                                  b in prop::collection::btree_map("[ab]{0,2}", "[ab]{1,70}", 0..3)) {
            let (left, right) = (Labels::new(a.iter().collect()), Labels::new(b.iter().collect()));
            prop_assert_eq!(left.cmp(&right), a.iter().cmp(b.iter()));
        }
    }
}
