//! Extracts the series selectors of a PromQL expression. Grafana requests the exemplars of a panel by sending the
//! panel's whole expression.

use promql_parser::label::{MatchOp, Matcher as PromqlMatcher};
use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use wardroom_domain::Matcher;
use wardroom_domain::matcher::{MAX_MATCHERS, take_quoted};
use wardroom_domain::query::{MAX_PATTERNS, MAX_SELECTORS};

/// Maximum length of an expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 16 << 10;
/// Maximum number of brackets and operators. Each may nest the tree one level deeper, and the parser recurses on it.
const MAX_NESTING: usize = 256;

/// Returns the matchers of every selector in a PromQL expression.
///
/// # Errors
/// Returns a message if the expression cannot be parsed, exceeds a limit, or has a selector that matches every series
/// (Prometheus refuses that too).
pub fn extract_selectors(expression: &str) -> Result<Vec<Vec<Matcher>>, String> {
    if expression.len() > MAX_EXPRESSION_BYTES {
        return Err(format!("the expression is {} bytes long; at most {MAX_EXPRESSION_BYTES}", expression.len()));
    }
    if max_nesting(expression) > MAX_NESTING {
        return Err(format!("the expression has more than {MAX_NESTING} brackets and operators"));
    }
    let (expression, patterns) = hide_patterns(expression);
    if patterns.len() > MAX_PATTERNS {
        return Err(format!("the expression has more than {MAX_PATTERNS} matchers with =~ or !~"));
    }
    let mut visitor = SelectorVisitor { patterns, selectors: Vec::new() };
    walk_expr(&mut visitor, &parse(&expression)?)?;
    Ok(visitor.selectors)
}

/// Replaces the pattern of each `=~` and `!~` by a placeholder and returns the patterns. The parser would compile them
/// as Rust's regular expressions and refuse what only RE2 has, such as `\Q…\E`.
fn hide_patterns(expression: &str) -> (String, Vec<String>) {
    let (mut out, mut patterns) = (String::with_capacity(expression.len()), Vec::new());
    let (mut rest, mut braces) = (expression, false);
    while let Some(c) = rest.chars().next() {
        let mut end = c.len_utf8();
        // The pattern after `=~` or `!~` in braces.
        let operator = ["=~", "!~"].into_iter().find_map(|operator| Some((operator, rest.strip_prefix(operator)?)));
        if let Some((operator, (pattern, tail))) =
            operator.filter(|_| braces).and_then(|(operator, tail)| Some((operator, take_quoted(skip_blanks(tail))?)))
        {
            out.push_str(&format!("{operator}\"{}\"", placeholder(patterns.len())));
            patterns.push(pattern);
            rest = tail;
            continue;
        }
        match c {
            // A comment hides quotes and braces up to the end of its line.
            '#' => end = rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' | '`' => end = take_quoted(rest).map_or(end, |(_, tail)| rest.len() - tail.len()),
            '{' => braces = true,
            '}' => braces = false,
            _ => {}
        }
        let (token, tail) = rest.split_at(end);
        out.push_str(token);
        rest = tail;
    }
    (out, patterns)
}

/// Skips white space and comments.
fn skip_blanks(text: &str) -> &str {
    let mut text = text.trim_start();
    while text.starts_with('#') {
        text = text.split_once('\n').map_or("", |(_, tail)| tail.trim_start());
    }
    text
}

fn placeholder(index: usize) -> String {
    format!("pattern {index}")
}

/// Returns an upper bound of the depth of the syntax tree. Quoted text and matchers in braces do not nest.
fn max_nesting(expression: &str) -> usize {
    let (mut levels, mut quote, mut braces, mut escaped) = (0, None, false, false);
    for c in expression.chars() {
        match (quote, c) {
            // A comment hides quotes and braces up to the end of its line.
            (Some('#'), '\n') => quote = None,
            (Some(_), _) if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(open), c) if open == c && open != '#' => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`' | '#') => quote = Some(c),
            (None, '{') => braces = true,
            (None, '}') => braces = false,
            (None, '(' | '[' | '+' | '-' | '*' | '/' | '%' | '^' | '=' | '!' | '<' | '>') if !braces => levels += 1,
            _ => {}
        }
    }
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    levels + words.filter(|word| ["and", "or", "unless", "atan2"].contains(word)).count()
}

struct SelectorVisitor {
    /// The patterns that placeholders stand for.
    patterns: Vec<String>,
    selectors: Vec<Vec<Matcher>>,
}

impl ExprVisitor for SelectorVisitor {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        match expression {
            Expr::VectorSelector(selector) => self.add(selector)?,
            Expr::MatrixSelector(selector) => self.add(&selector.vs)?,
            _ => {}
        }
        Ok(true)
    }
}

impl SelectorVisitor {
    fn add(&mut self, selector: &VectorSelector) -> Result<(), String> {
        let name = selector.name.as_ref().map(|name| Matcher::equal("__name__", name));
        let all = &selector.matchers;
        // `{a="1" or b="2"}` fills `or_matchers` and leaves `matchers` empty.
        let alternatives = all.or_matchers.iter().chain(Some(&all.matchers).filter(|_| all.or_matchers.is_empty()));
        for alternative in alternatives {
            let matchers: Result<Vec<_>, _> = name
                .clone()
                .map(Ok)
                .into_iter()
                .chain(alternative.iter().map(|found| self.to_matcher(found)))
                .collect();
            let matchers = matchers?;
            if matchers.len() > MAX_MATCHERS {
                return Err(format!("a selector has more than {MAX_MATCHERS} matchers"));
            }
            if matchers.iter().all(|matcher| matcher.accepts("")) {
                return Err("a selector would match every series; require at least one non-empty label".into());
            }
            self.selectors.push(matchers);
        }
        if self.selectors.len() > MAX_SELECTORS {
            return Err(format!("the expression has more than {MAX_SELECTORS} selectors"));
        }
        Ok(())
    }

    fn to_matcher(&self, matcher: &PromqlMatcher) -> Result<Matcher, String> {
        let (name, value) = (matcher.name.as_str(), matcher.value.as_str());
        let pattern = || {
            let index = value.strip_prefix("pattern ").and_then(|index| index.parse::<usize>().ok());
            Matcher::regex(name, index.and_then(|index| self.patterns.get(index)).map_or(value, String::as_str))
        };
        Ok(match matcher.op {
            MatchOp::Equal => Matcher::equal(name, value),
            MatchOp::NotEqual => Matcher::equal(name, value).negate(),
            MatchOp::Re(_) => pattern()?,
            MatchOp::NotRe(_) => pattern()?.negate(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|text| Matcher::parse_selector(text).unwrap()).collect();
        assert_eq!(extract_selectors(expression).unwrap(), expected, "{expression}");
    }

    #[test]
    fn extracts_every_selector() {
        check("up", &["up"]);
        check(r#"{__name__="g",job=~"a|b"}"#, &[r#"{__name__="g",job=~"a|b"}"#]);
        check(
            r#"histogram_quantile(0.95, sum by (le) (rate(latency_seconds_bucket{job!~"x.*"}[5m] offset 1h)))"#,
            &[r#"latency_seconds_bucket{job!~"x.*"}"#],
        );
        check(r#"sum(a{x="1"}) / on (y) group_left b{x!="2"} > 0"#, &[r#"a{x="1"}"#, r#"b{x!="2"}"#]);
        check(r#"max_over_time(rate(c[1m])[10m:1m])"#, &["c"]);
        check(r#"{a="1" or b="2"}"#, &[r#"{a="1"}"#, r#"{b="2"}"#]);
        check("1 + 2", &[]);
        check(r#"sum(rate({"http.requests","k8s.pod"=~"a.*"}[5m]))"#, &[r#"{"http.requests","k8s.pod"=~"a.*"}"#]);
    }

    #[test]
    fn patterns_have_re2_syntax() {
        check(
            r#"sum(m{uri=~"/v[1-9]/.*/{gid}/{uid}"}) / sum(m{uri!~"\\Q{a}\\E", b = "=~\"x\""})"#,
            &[r#"m{uri=~"/v[1-9]/.*/{gid}/{uid}"}"#, r#"m{uri!~"\\Q{a}\\E",b="=~\"x\""}"#],
        );
        check("m{a=~ # why \"\n `\\Q'\\E`,b=~'pattern 0'} # {c=~\"(\"}", &["m{a=~`\\Q'\\E`,b=~\"pattern 0\"}"]);
        check("label_replace(m, \"a\", \"{b=~'('}\", \"c\", \".*\")", &["m"]);
        assert!(extract_selectors(r#"m{a=~"a**"}"#).unwrap_err().contains("repetition"));
    }

    #[test]
    fn invalid_expressions_return_an_error() {
        for wrong in ["", "up{", "{}", r#"{a=~".*"}"#, "rate(up)", r#"up{a=~"("}"#, "a+"] {
            assert!(!extract_selectors(wrong).unwrap_err().is_empty(), "{wrong}");
        }
        assert!(extract_selectors(&format!("{}up", "a+".repeat(64))).unwrap_err().contains("more than 64"));
        let matchers = |count: usize, matcher: &str| format!("up{{{}}}", vec![matcher; count].join(","));
        assert!(extract_selectors(&matchers(100, "a!=\"b\"")).unwrap_err().contains("more than 64 matchers"));
        assert!(extract_selectors(&matchers(100, "a=~\"b\"")).unwrap_err().contains("=~ or !~"));
        assert!(extract_selectors(&" ".repeat(20_000)).unwrap_err().contains("20000 bytes"));
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        for (open, close) in [("-", ""), ("(", ")"), ("1+", ""), ("1 and ", ""), ("abs(", ")"), ("1 == bool ", "")] {
            let nested = |times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
            drop(extract_selectors(&nested(MAX_NESTING / 2)));
            let error = extract_selectors(&nested(1000)).unwrap_err();
            assert!(error.contains("more than 256"), "{open}: {error}");
        }
        for hidden in ["# \"\n", "# {\n", "# '#\n"] {
            let error = extract_selectors(&format!("{hidden}{}1", "(".repeat(1000))).unwrap_err();
            assert!(error.contains("more than 256"), "{hidden}: {error}");
        }
        let quoted = format!(r#"up{{a="{}\"((",b='-',c=~`[(]-`}}"#, "(".repeat(1000));
        assert_eq!(extract_selectors(&quoted).unwrap().len(), 1);
    }
}
