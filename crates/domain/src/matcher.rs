//! Conditions on labels, as Prometheus writes them: `up{job="node",env!~"dev|test"}`.

use regex::Regex;

use crate::labels::{Labels, NAME};

/// Longest pattern, in bytes; a longer one is refused before it is compiled.
const MAX_PATTERN: usize = 4096;

/// One condition on one label. An absent label counts as the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The value or the pattern it is compared with.
    pub value: String,
    test: Test,
    negated: bool,
}

#[derive(Clone, Debug)]
enum Test {
    Equal,
    Pattern(Regex),
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        let parts = |matcher: &Self| (matcher.negated, matches!(matcher.test, Test::Equal));
        (&self.name, &self.value, parts(self)) == (&other.name, &other.value, parts(other))
    }
}

impl Eq for Matcher {}

impl Matcher {
    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), test: Test::Equal, negated: false }
    }

    /// `name=~"pattern"`, matching the whole value.
    ///
    /// # Errors
    /// The pattern is no regular expression, or too large a one.
    pub fn regex(name: impl Into<String>, pattern: impl Into<String>) -> Result<Self, String> {
        let pattern = pattern.into();
        if pattern.len() > MAX_PATTERN {
            return Err(format!("the pattern is {} bytes long; at most {MAX_PATTERN}", pattern.len()));
        }
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(1 << 20)
            .build()
            .map_err(|error| format!("the pattern {pattern:?} cannot be used: {error}"))?;
        Ok(Self { name: name.into(), value: pattern, test: Test::Pattern(regex), negated: false })
    }

    /// The opposite condition: `!=` or `!~`.
    #[must_use]
    pub fn negate(mut self) -> Self {
        self.negated = !self.negated;
        self
    }

    /// Whether a label set meets the condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.name).unwrap_or_default())
    }

    /// Whether a value meets the condition.
    pub fn accepts(&self, value: &str) -> bool {
        let met = match &self.test {
            Test::Equal => self.value == value,
            Test::Pattern(regex) => regex.is_match(value),
        };
        met != self.negated
    }

    /// The only value that meets the condition, if there is just one and it is not the empty one: an index
    /// finds the series by it.
    pub fn only_value(&self) -> Option<&str> {
        (matches!(self.test, Test::Equal) && !self.negated && !self.value.is_empty()).then_some(&self.value)
    }

    /// Reads a selector such as `up{job="node",env!~"dev|test"}`.
    ///
    /// # Errors
    /// Names the part that could not be read. A selector that would match every series is refused, as
    /// Prometheus refuses it.
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
            matchers.push(Self::equal(NAME, name));
        }
        let mut rest = rest.trim();
        while !rest.is_empty() {
            let at = rest.find(['=', '!']).ok_or_else(|| format!("matcher {rest:?} lacks =, !=, =~ or !~"))?;
            let (label, tail) = rest.split_at(at);
            let (operator, tail) = ["=~", "!~", "!=", "="]
                .into_iter()
                .find_map(|operator| Some((operator, tail.strip_prefix(operator)?)))
                .ok_or_else(|| format!("matcher {rest:?}: only =, !=, =~ and !~ are understood"))?;
            let (value, tail) =
                quoted(tail.trim_start()).ok_or_else(|| format!("matcher {rest:?}: the value must stand in quotes"))?;
            let label = label.trim();
            let matcher = match operator {
                "=" => Self::equal(label, value),
                "!=" => Self::equal(label, value).negate(),
                "=~" => Self::regex(label, value).map_err(|error| format!("matcher {rest:?}: {error}"))?,
                _ => Self::regex(label, value).map_err(|error| format!("matcher {rest:?}: {error}"))?.negate(),
            };
            matchers.push(matcher);
            rest = tail.trim();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim();
        }
        if matchers.iter().all(|matcher| matcher.accepts("")) {
            return Err("the selector would match every series; name at least one label that must be there".to_owned());
        }
        Ok(matchers)
    }
}

/// A quoted text at the beginning, and what follows: double or single quotes with escapes, or backticks.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().filter(|(_, c)| ['"', '\'', '`'].contains(c))?;
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, text.get(at + 1..).unwrap_or_default())),
            '\\' if quote != '`' => value.push(escape(&mut chars)?),
            c => value.push(c),
        }
    }
    None
}

/// What follows a backslash, as Go reads it.
fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, c) = chars.next()?;
    Some(match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        'x' => hex(chars, 2)?,
        'u' => hex(chars, 4)?,
        'U' => hex(chars, 8)?,
        '\\' | '"' | '\'' => c,
        _ => return None,
    })
}

fn hex(chars: &mut std::str::CharIndices<'_>, digits: usize) -> Option<char> {
    let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
    u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selectors_parse_and_match() {
        let labels = Labels::of(&[(NAME, "up"), ("job", "node, 1"), ("env", "prod")]);
        let matchers = Matcher::parse_selector(r#"up{job="node, 1", env!="dev",env=~'pr.d',job!~`x|y`,}"#).unwrap();
        assert_eq!(matchers.len(), 5);
        assert!(matchers.iter().all(|matcher| matcher.matches(&labels)));
        assert!(Matcher::parse_selector("{}").is_err());
        assert!(Matcher::parse_selector("{job=~\".*\"}").is_err());
        assert!(Matcher::parse_selector("{job!=\"a\"}").is_err());
        assert!(Matcher::parse_selector("up{job=~\"(\"}").is_err());
        assert!(Matcher::parse_selector("up{job").is_err());
        assert!(Matcher::parse_selector("up{job=\"\\z\"}").is_err());
    }

    #[test]
    fn patterns_match_the_whole_value_and_absent_labels_are_empty() {
        let labels = Labels::of(&[("a", "abc")]);
        let pattern = |name: &str, pattern: &str| Matcher::regex(name, pattern).unwrap().matches(&labels);
        assert!(pattern("a", "a.c") && !pattern("a", "a.") && pattern("a", "x|abc") && pattern("b", ".*"));
        assert!(!Matcher::regex("a", "a.*").unwrap().negate().matches(&labels));
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_a_clear_no(text in ".*", label in "[a-z]{1,4}", value in ".*") {
            if let Err(error) = Matcher::parse_selector(&text) {
                prop_assert!(!error.is_empty());
            }
            let written = Labels::of(&[(NAME, "m"), (&label, &value)]);
            let matchers = Matcher::parse_selector(&written.to_string()).unwrap();
            prop_assert!(matchers.iter().all(|matcher| matcher.matches(&written)), "{}", written);
        }
    }
}
