//! Label sets, as Prometheus has them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// The label that holds a series' metric name.
pub const NAME: &str = "__name__";

/// A sorted set of label pairs in one allocation; cheap to clone.
///
/// The text holds name and value of each pair in turn, each behind its length in bytes: six bits a
/// character, low ones first, 0x40 added to all but the last. A million series are a million such texts,
/// so pairs of strings would cost four times the memory.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Labels {
    /// Sorts the pairs by name. A name that comes twice keeps its first value; empty values are
    /// dropped, as Prometheus treats an empty label as an absent one.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(mut pairs: Vec<(N, V)>) -> Self {
        pairs.retain(|(_, value)| !value.as_ref().is_empty());
        pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        pairs.dedup_by(|later, earlier| later.0.as_ref() == earlier.0.as_ref());
        let mut text = String::with_capacity(256);
        for (name, value) in &pairs {
            put(&mut text, name.as_ref());
            put(&mut text, value.as_ref());
        }
        Self(text.into())
    }

    /// From string slices, for tests and internal series.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self::new(pairs.to_vec())
    }

    /// The value of one label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The metric name, or nothing.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or_default()
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || Some((take(&mut rest)?, take(&mut rest)?)))
    }

    /// The set as bytes: equal sets have equal bytes. For hashing; not a persisted format.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn put(text: &mut String, part: &str) {
    let mut size = part.len();
    while size > 0x3f {
        text.push(char::from((size & 0x3f) as u8 | 0x40));
        size >>= 6;
    }
    text.push(char::from(size as u8));
    text.push_str(part);
}

fn take<'a>(rest: &mut &'a str) -> Option<&'a str> {
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
    /// Pair by pair, as a list of pairs would order.
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
        // The number is told: formats without names ask for it.
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
    fn shows_as_promtool_does() {
        let labels = Labels::of(&[("job", "t"), (NAME, "g"), ("q", "a\"b\n")]);
        assert_eq!(labels.to_string(), r#"{__name__="g", job="t", q="a\"b\n"}"#);
    }

    proptest! {
        #[test]
        fn any_pairs_come_back_sorted(pairs in prop::collection::btree_map(".{0,5}", "(?s).{1,200}", 0..9)) {
            let labels = Labels::new(pairs.iter().rev().collect());
            let expected: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(labels.iter().collect::<Vec<_>>(), expected.clone());
            for (name, value) in expected {
                prop_assert_eq!(labels.get(name), Some(value));
            }
        }

        #[test]
        fn order_is_that_of_pairs(a in prop::collection::btree_map("[ab]{0,2}", "[ab]{1,70}", 0..3),
                                  b in prop::collection::btree_map("[ab]{0,2}", "[ab]{1,70}", 0..3)) {
            let (left, right) = (Labels::new(a.iter().collect()), Labels::new(b.iter().collect()));
            prop_assert_eq!(left.cmp(&right), a.iter().cmp(b.iter()));
        }
    }
}
