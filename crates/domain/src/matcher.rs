//! Label matchers in Prometheus syntax: `up{job="node",env!~"dev|test"}`.

use regex::Regex;

use crate::labels::{Labels, NAME_LABEL};

/// Maximum length of a pattern; checked before it is compiled.
const MAX_PATTERN_BYTES: usize = 4096;
/// Maximum size of a compiled pattern.
const MAX_COMPILED_PATTERN_BYTES: usize = 1 << 20;

/// One condition on one label. An absent label counts as the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Name of the label.
    pub name: String,
    /// Value or pattern to compare with.
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
    /// Creates `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), test: Test::Equal, negated: false }
    }

    /// Creates `name=~"pattern"`; the pattern must match the whole value.
    ///
    /// # Errors
    /// Returns an error if the pattern is not a regular expression or is too large.
    pub fn regex(name: impl Into<String>, pattern: impl Into<String>) -> Result<Self, String> {
        let pattern = pattern.into();
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("the pattern is {} bytes long; the maximum is {MAX_PATTERN_BYTES}", pattern.len()));
        }
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(MAX_COMPILED_PATTERN_BYTES)
            .build()
            .map_err(|error| format!("invalid pattern {pattern:?}: {error}"))?;
        Ok(Self { name: name.into(), value: pattern, test: Test::Pattern(regex), negated: false })
    }

    /// Returns the negated condition: `!=` or `!~`.
    #[must_use]
    pub fn negate(mut self) -> Self {
        self.negated = !self.negated;
        self
    }

    /// Returns whether a label set meets the condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.name).unwrap_or_default())
    }

    /// Returns whether a value meets the condition.
    pub fn accepts(&self, value: &str) -> bool {
        let met = match &self.test {
            Test::Equal => self.value == value,
            Test::Pattern(regex) => regex.is_match(value),
        };
        met != self.negated
    }

    /// Returns the value if it is the only one that meets the condition and not empty; an index can then find the
    /// series.
    pub fn only_value(&self) -> Option<&str> {
        (matches!(self.test, Test::Equal) && !self.negated && !self.value.is_empty()).then_some(&self.value)
    }

    /// Parses a selector such as `up{job="node",env!~"dev|test"}`.
    ///
    /// # Errors
    /// Returns an error that names the invalid part. Like in Prometheus, a selector that matches every series is an
    /// error.
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
            matchers.push(Self::equal(NAME_LABEL, name));
        }
        let mut rest = rest.trim();
        while !rest.is_empty() {
            let operator_start =
                rest.find(['=', '!']).ok_or_else(|| format!("matcher {rest:?} lacks =, !=, =~ or !~"))?;
            let (label, tail) = rest.split_at(operator_start);
            let (operator, tail) = ["=~", "!~", "!=", "="]
                .into_iter()
                .find_map(|operator| Some((operator, tail.strip_prefix(operator)?)))
                .ok_or_else(|| format!("matcher {rest:?}: only =, !=, =~ and !~ are supported"))?;
            let (value, tail) =
                take_quoted(tail.trim_start()).ok_or_else(|| format!("matcher {rest:?}: the value must be quoted"))?;
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
            return Err("the selector matches every series; require at least one non-empty label".to_owned());
        }
        Ok(matchers)
    }
}

/// Splits off a leading quoted text: double or single quotes with escapes, or backticks.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().filter(|(_, c)| ['"', '\'', '`'].contains(c))?;
    let mut value = String::new();
    while let Some((index, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, text.get(index + 1..).unwrap_or_default())),
            '\\' if quote != '`' => value.push(escape(&mut chars)?),
            c => value.push(c),
        }
    }
    None
}

/// Decodes an escape sequence after the backslash, like Go.
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
    fn parses_and_matches_selectors() {
        let labels = Labels::of(&[(NAME_LABEL, "up"), ("job", "node, 1"), ("env", "prod")]);
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
    fn patterns_match_the_whole_value_and_absent_labels_count_as_empty() {
        let labels = Labels::of(&[("a", "abc")]);
        let pattern = |name: &str, pattern: &str| Matcher::regex(name, pattern).unwrap().matches(&labels);
        assert!(pattern("a", "a.c") && !pattern("a", "a.") && pattern("a", "x|abc") && pattern("b", ".*"));
        assert!(!Matcher::regex("a", "a.*").unwrap().negate().matches(&labels));
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error_with_text(text in ".*", label in "[a-z]{1,4}", value in ".*") {
            if let Err(error) = Matcher::parse_selector(&text) {
                prop_assert!(!error.is_empty());
            }
            let written = Labels::of(&[(NAME_LABEL, "m"), (&label, &value)]);
            let matchers = Matcher::parse_selector(&written.to_string()).unwrap();
            prop_assert!(matchers.iter().all(|matcher| matcher.matches(&written)), "{}", written);
        }
    }
}
