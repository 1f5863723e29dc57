//! The selectors in a PromQL expression: Grafana asks for the exemplars of what a panel draws, and sends the panel's
//! whole expression.

use promql_parser::label::{MatchOp, Matcher as Written};
use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use wardroom_domain::Matcher;

/// Longest expression, in bytes.
const MAX_EXPRESSION: usize = 16 << 10;
/// Brackets and operators in it: each may nest the tree one level deeper, and trees are walked by recursion.
const MAX_LEVELS: usize = 256;
/// Selectors of one expression; each is looked up.
const MAX_SELECTORS: usize = 64;

/// Every selector of an expression, each as its matchers.
///
/// # Errors
/// What cannot be read, in words. A selector that would match every series is refused, as Prometheus refuses it.
pub fn selectors(expression: &str) -> Result<Vec<Vec<Matcher>>, String> {
    if expression.len() > MAX_EXPRESSION {
        return Err(format!("the expression is {} bytes long; at most {MAX_EXPRESSION}", expression.len()));
    }
    if levels(expression) > MAX_LEVELS {
        return Err(format!("the expression has more than {MAX_LEVELS} brackets and operators"));
    }
    let mut found = Found::default();
    walk_expr(&mut found, &parse(expression)?)?;
    Ok(found.selectors)
}

/// How deep the tree can be, at most. What stands in quotes or within braces does not nest.
fn levels(expression: &str) -> usize {
    let (mut levels, mut quote, mut braces, mut escaped) = (0, None, false, false);
    for c in expression.chars() {
        match (quote, c) {
            // A quote in a comment opens nothing: what comes behind it counts.
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

#[derive(Default)]
struct Found {
    selectors: Vec<Vec<Matcher>>,
}

impl ExprVisitor for Found {
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

impl Found {
    fn add(&mut self, selector: &VectorSelector) -> Result<(), String> {
        let name = selector.name.as_ref().map(|name| Matcher::equal("__name__", name));
        let all = &selector.matchers;
        // `{a="1" or b="2"}` means either; nothing is written on both sides of it.
        let either = all.or_matchers.iter().chain(Some(&all.matchers).filter(|_| all.or_matchers.is_empty()));
        for written in either {
            let matchers: Result<Vec<_>, _> =
                name.clone().map(Ok).into_iter().chain(written.iter().map(ours)).collect();
            let matchers = matchers?;
            if matchers.iter().all(|matcher| matcher.accepts("")) {
                return Err("a selector would match every series; name at least one label that must be there".into());
            }
            self.selectors.push(matchers);
        }
        if self.selectors.len() > MAX_SELECTORS {
            return Err(format!("the expression holds more than {MAX_SELECTORS} selectors"));
        }
        Ok(())
    }
}

fn ours(written: &Written) -> Result<Matcher, String> {
    let (name, value) = (written.name.as_str(), written.value.as_str());
    Ok(match written.op {
        MatchOp::Equal => Matcher::equal(name, value),
        MatchOp::NotEqual => Matcher::equal(name, value).negate(),
        MatchOp::Re(_) => Matcher::regex(name, value)?,
        MatchOp::NotRe(_) => Matcher::regex(name, value)?.negate(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|text| Matcher::parse_selector(text).unwrap()).collect();
        assert_eq!(selectors(expression).unwrap(), expected, "{expression}");
    }

    #[test]
    fn every_selector_of_an_expression_is_found() {
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
    }

    #[test]
    fn what_cannot_be_read_gets_a_reason() {
        for wrong in ["", "up{", "{}", r#"{a=~".*"}"#, "rate(up)", r#"up{a=~"("}"#, "a+"] {
            assert!(!selectors(wrong).unwrap_err().is_empty(), "{wrong}");
        }
        assert!(selectors(&format!("{}up", "a+".repeat(64))).unwrap_err().contains("more than 64"));
        assert!(selectors(&" ".repeat(20_000)).unwrap_err().contains("20000 bytes"));
    }

    #[test]
    fn the_deepest_expression_does_not_exhaust_the_stack() {
        for (open, close) in [("-", ""), ("(", ")"), ("1+", ""), ("1 and ", ""), ("abs(", ")"), ("1 == bool ", "")] {
            let nested = |times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
            drop(selectors(&nested(MAX_LEVELS / 2)));
            let error = selectors(&nested(1000)).unwrap_err();
            assert!(error.contains("more than 256"), "{open}: {error}");
        }
        for hidden in ["# \"\n", "# {\n", "# '#\n"] {
            let error = selectors(&format!("{hidden}{}1", "(".repeat(1000))).unwrap_err();
            assert!(error.contains("more than 256"), "{hidden}: {error}");
        }
        let quoted = format!(r#"up{{a="{}\"((",b='-',c=~`[(]-`}}"#, "(".repeat(1000));
        assert_eq!(selectors(&quoted).unwrap().len(), 1);
    }
}
