//! Label matchers in Prometheus syntax: `up{job="node",env!~"dev|test"}`, or `{"http.requests","k8s.pod"="a"}` with
//! names of any characters.

use regex::bytes::{Regex, RegexBuilder};

use crate::labels::{Labels, NAME_LABEL};
use crate::re2;

/// Maximum length of a pattern; checked before it is compiled.
const MAX_PATTERN_BYTES: usize = 4096;
/// Maximum size of a compiled pattern: matching a value takes time in proportion to it in the worst case. An
/// alternative of names up to the length limit fits.
const MAX_COMPILED_PATTERN_BYTES: usize = 256 << 10;
/// Maximum size of the states that one pattern caches while it is matched.
const MAX_PATTERN_CACHE_BYTES: usize = 256 << 10;
/// Maximum length of a selector.
const MAX_SELECTOR_BYTES: usize = 16 << 10;
/// Maximum number of matchers in a selector; each is compared with every series that an index does not exclude.
pub const MAX_MATCHERS: usize = 64;

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

    /// Creates `name=~"pattern"`; the pattern has RE2 syntax, as in Prometheus, and must match the whole value.
    ///
    /// # Errors
    /// Returns an error if the pattern is not an RE2 regular expression or is too large.
    pub fn regex(name: impl Into<String>, pattern: impl Into<String>) -> Result<Self, String> {
        let pattern = pattern.into();
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("the pattern is {} bytes long; the maximum is {MAX_PATTERN_BYTES}", pattern.len()));
        }
        let translated = re2::translate(&pattern).map_err(|error| format!("invalid pattern {pattern:?}: {error}"))?;
        let regex = RegexBuilder::new(&format!(r"\A(?s:{translated})\z"))
            .size_limit(MAX_COMPILED_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_CACHE_BYTES)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(limit) => format!(
                    "the pattern {pattern:?} needs more than {limit} bytes compiled: repeat less, as in {{90}}, and use \
                     [a-z] for dots"
                ),
                error => format!("invalid pattern {pattern:?}: {error}"),
            })?;
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
            Test::Pattern(regex) => regex.is_match(value.as_bytes()),
        };
        met != self.negated
    }

    /// Returns the value if it is the only one that meets the condition and not empty; an index can then find the
    /// series.
    pub fn only_value(&self) -> Option<&str> {
        (matches!(self.test, Test::Equal) && !self.negated && !self.value.is_empty()).then_some(&self.value)
    }

    /// Returns whether the value is a pattern.
    pub const fn is_pattern(&self) -> bool {
        matches!(self.test, Test::Pattern(_))
    }

    /// Parses a selector such as `up{job="node",env!~"dev|test"}` or `{"http.requests","k8s.pod"="a"}`. A name that is
    /// not quoted may have any characters but white space, quotes, brackets and operators.
    ///
    /// # Errors
    /// Returns an error that names the invalid part, or the limit that the selector exceeds. Like in Prometheus, a
    /// selector that matches every series is an error.
    pub fn parse_selector(text: &str) -> Result<Vec<Self>, String> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(format!(
                "the selector is {} bytes long; at most {MAX_SELECTOR_BYTES}: use several selectors",
                text.len()
            ));
        }
        let mut matchers = Vec::new();
        let (name, rest) = take_bare_name(text.trim());
        if !name.is_empty() {
            matchers.push(Self::equal(NAME_LABEL, name));
        }
        let rest = rest.trim_start();
        if let Some(body) = rest.strip_prefix('{') {
            let tail = parse_matchers(body, &mut matchers)?;
            let tail = tail.ok_or_else(|| format!("selector {text:?} lacks its closing brace"))?;
            if !tail.trim().is_empty() {
                return Err(format!("selector {text:?}: unexpected {:?} after the closing brace", tail.trim()));
            }
        } else if !rest.is_empty() {
            return Err(format!(
                "selector {text:?}: {rest:?} is not a selector; quote names inside braces: {{\"a.b\"}}"
            ));
        }
        if matchers.iter().all(|matcher| matcher.accepts("")) {
            return Err("the selector matches every series; require at least one non-empty label".to_owned());
        }
        Ok(matchers)
    }
}

/// Reads matchers up to the closing brace and returns the text after it; `None` if there is no closing brace.
fn parse_matchers<'a>(body: &'a str, matchers: &mut Vec<Matcher>) -> Result<Option<&'a str>, String> {
    let mut has_name = !matchers.is_empty();
    let mut rest = body.trim_start();
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('}') {
            return Ok(Some(tail));
        }
        // Before the next one is compiled.
        if matchers.len() >= MAX_MATCHERS {
            return Err(format!("the selector has more than {MAX_MATCHERS} matchers; join values as in a=~\"b|c\""));
        }
        let (quoted, name, tail) = match take_quoted(rest) {
            Some((name, tail)) => (true, name, tail),
            None => {
                let (name, tail) = take_bare_name(rest);
                (false, name.to_owned(), tail)
            }
        };
        if name.is_empty() {
            return Err(format!("matcher {rest:?}: a label name is missing"));
        }
        let tail = tail.trim_start();
        let operator =
            ["=~", "!~", "!=", "="].into_iter().find_map(|operator| Some((operator, tail.strip_prefix(operator)?)));
        let tail = match operator {
            Some((operator, value)) => {
                let (value, tail) = take_quoted(value.trim_start())
                    .ok_or_else(|| format!("matcher {rest:?}: the value must be quoted"))?;
                let pattern =
                    |name, value| Matcher::regex(name, value).map_err(|error| format!("matcher {rest:?}: {error}"));
                matchers.push(match operator {
                    "=" => Matcher::equal(name, value),
                    "!=" => Matcher::equal(name, value).negate(),
                    "=~" => pattern(name, value)?,
                    _ => pattern(name, value)?.negate(),
                });
                tail
            }
            // A quoted text alone is the metric name.
            None if quoted && has_name => return Err(format!("matcher {rest:?}: the metric name is given twice")),
            None if quoted => {
                has_name = true;
                matchers.push(Matcher::equal(NAME_LABEL, name));
                tail
            }
            None => return Err(format!("matcher {rest:?} lacks =, !=, =~ or !~")),
        };
        let tail = tail.trim_start();
        rest = match tail.strip_prefix(',') {
            Some(tail) => tail.trim_start(),
            None if tail.is_empty() || tail.starts_with('}') => tail,
            None => return Err(format!("matcher {rest:?}: a comma must separate matchers")),
        };
    }
    Ok(None)
}

/// Splits off a name that is not quoted; empty if there is none.
fn take_bare_name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || "{}\"'`,=!~()[]".contains(c));
    text.split_at(end.unwrap_or(text.len()))
}

/// Splits off a leading quoted text, as PromQL quotes: double or single quotes with Go's escapes, or backticks. `None`
/// if the text does not begin with a quote, is not closed, or has an invalid escape.
pub fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().filter(|(_, c)| ['"', '\'', '`'].contains(c))?;
    // Escapes such as \xc3 stand for bytes, of which several are one character.
    let mut value = Vec::new();
    while let Some((index, c)) = chars.next() {
        match c {
            c if c == quote => {
                return Some((String::from_utf8(value).ok()?, text.get(index + 1..).unwrap_or_default()));
            }
            '\\' if quote != '`' => push_escape(&mut chars, &mut value)?,
            c => push_char(&mut value, c),
        }
    }
    None
}

fn push_char(value: &mut Vec<u8>, c: char) {
    value.extend(c.encode_utf8(&mut [0; 4]).bytes());
}

/// Decodes an escape sequence after the backslash, like Go.
fn push_escape(chars: &mut std::str::CharIndices<'_>, value: &mut Vec<u8>) -> Option<()> {
    let (_, c) = chars.next()?;
    let mut code = |first: &str, digits: usize, radix: u32| {
        let text: String = first.chars().chain(chars.by_ref().take(digits).map(|(_, c)| c)).collect();
        let complete = text.len() == first.len() + digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        complete.then(|| u32::from_str_radix(&text, radix).ok()).flatten()
    };
    match c {
        'a' => value.push(7),
        'b' => value.push(8),
        'f' => value.push(0xc),
        'n' => value.push(b'\n'),
        'r' => value.push(b'\r'),
        't' => value.push(b'\t'),
        'v' => value.push(0xb),
        'x' => value.push(u8::try_from(code("", 2, 16)?).ok()?),
        '0'..='7' => value.push(u8::try_from(code(c.encode_utf8(&mut [0; 4]), 2, 8)?).ok()?),
        'u' => push_char(value, char::from_u32(code("", 4, 16)?)?),
        'U' => push_char(value, char::from_u32(code("", 8, 16)?)?),
        '\\' | '"' | '\'' => push_char(value, c),
        _ => return None,
    }
    Some(())
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
        assert!(Matcher::regex("a", "x)|(abc").is_err(), "an alternative must not escape the anchors");
    }

    #[test]
    fn patterns_have_re2_syntax() {
        let selector = r#"m{uri=~"/v[1-9]/.*/{gid}/{uid}",uri!~"\\d",uri!~'\\Q.\\E'}"#;
        let matchers = Matcher::parse_selector(selector).unwrap();
        let labels = Labels::of(&[(NAME_LABEL, "m"), ("uri", "/v1/shops/{gid}/{uid}")]);
        assert!(matchers.iter().all(|matcher| matcher.matches(&labels)));
        let digit = Matcher::regex("uri", r"\d").unwrap();
        assert!(digit.accepts("7") && !digit.accepts("\u{663}"), "\\d is ASCII only");
        assert!(!Matcher::regex("uri", "shops").unwrap().matches(&labels), "anchored at both ends");
    }

    #[test]
    fn names_may_have_any_characters() {
        let labels = Labels::of(&[(NAME_LABEL, "http.duration"), ("k8s.pod", "a"), ("a}\"", "b"), ("up:9", "c")]);
        for selector in [
            r#"{"http.duration"}"#,
            r#"{__name__="http.duration"}"#,
            r#" { 'http.duration' , "k8s.pod" =~ "a|x", }"#,
            r#"{"k8s.pod"="a"}"#,
            r#"{"a}\"" = `b`,"http.duration"}"#,
            r#"{"k8s\056pod"="\x61"}"#,
            r#"{"k8s.pod"!="",}"#,
            "http.duration",
            r#"http.duration{k8s.pod="a",up:9!="d"}"#,
        ] {
            let matchers = Matcher::parse_selector(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
            assert!(matchers.iter().all(|matcher| matcher.matches(&labels)), "{selector}");
        }
        let euro = Matcher::parse_selector(r#"{a="\xe2\x82\xac\u20ac"}"#).unwrap();
        assert_eq!(euro[0].value, "€€", "escaped bytes are one character");
        for wrong in [
            r#"up{"down"}"#,
            r#"{"up","down"}"#,
            r#"{"up" "down"}"#,
            r#"{a="1" b="2"}"#,
            r#"{""="a"}"#,
            r#"{="a"}"#,
            r#"{,}"#,
            r#"{a}"#,
            r#"{"up"}x"#,
            r#"{"up"}}"#,
            r#""up""#,
            r#"{"up""#,
            r#"{"up}"#,
            r#"{a="\xff"}"#,
            r#"{a="\x4"}"#,
            r#"{a=b}"#,
            "a b",
        ] {
            assert!(!Matcher::parse_selector(wrong).expect_err(wrong).is_empty());
        }
    }

    #[test]
    fn selectors_and_patterns_are_limited() {
        let many = |count: usize, matcher: &str| {
            let matchers: Vec<_> = (0..count).map(|n| format!("l{n}{matcher}")).collect();
            Matcher::parse_selector(&format!("g{{{}}}", matchers.join(","))).map(|matchers| matchers.len())
        };
        assert_eq!(many(MAX_MATCHERS - 1, "!=\"x\""), Ok(MAX_MATCHERS));
        assert!(many(MAX_MATCHERS, "!=\"x\"").unwrap_err().contains("more than 64 matchers"));
        assert!(many(10_000, "=~\"x\"").unwrap_err().contains("bytes long"));
        let names: Vec<_> = (0..350).map(|n| format!("server-{n}")).collect();
        assert!(Matcher::regex("host", names.join("|")).is_ok(), "a long list of names");
        for pattern in ["(x|y){90}{90}", "(.{500}){20}", "((a{99}){99}){99}", "(\\pL{1000})*"] {
            assert!(Matcher::regex("host", pattern).is_err(), "{pattern}");
        }
        assert!(Matcher::regex("host", "a{1000}").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error_with_text(text in ".*", label in "[a-z]{1,4}|(?s).{1,4}", value in "(?s).*") {
            if let Err(error) = Matcher::parse_selector(&text) {
                prop_assert!(!error.is_empty());
            }
            let written = Labels::of(&[(NAME_LABEL, "m"), (&label, &value)]);
            let matchers = Matcher::parse_selector(&written.to_string()).unwrap();
            prop_assert!(matchers.iter().all(|matcher| matcher.matches(&written)), "{}", written);
        }
    }
}
