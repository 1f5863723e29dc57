//! Policy files: parsing, validation, and the rules' ids.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::str::FromStr;

use cedar_policy::{Authorizer, Effect, Policy as CedarPolicy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use wardroom_domain::canonical::sha256_hex;

use crate::error::{PolicyError, Problem};

/// The text of the policy that is used without `policy.file`.
pub const DEFAULT_POLICY: &str = include_str!("default.cedar");
/// The schema: what rules may refer to.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// Annotation with a rule's id.
const ID: &str = "id";
/// Annotation with a rule's reason, one line for people.
const REASON: &str = "reason";
/// Ids that begin so are of rules in code.
const RESERVED_PREFIX: &str = "wardroom:";
/// Maximum number of bytes of a policy file.
const MAX_POLICY_BYTES: usize = 1 << 20;

/// A rule, without its condition.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Line of its first token, from 1.
    pub(crate) line: usize,
    /// Whether it forbids.
    pub(crate) forbids: bool,
    /// Its reason for people; empty if it has none.
    pub(crate) reason: String,
}

/// A parsed and validated policy. Cheap to ask: some ten microseconds a decision.
#[derive(Debug)]
pub struct Policy {
    pub(crate) set: PolicySet,
    pub(crate) schema: Schema,
    pub(crate) authorizer: Authorizer,
    /// By id.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// What is odd but allowed: rules that can never match.
    pub(crate) warnings: Vec<Problem>,
    text: String,
    sha256: String,
}

impl Policy {
    /// Returns the default policy.
    ///
    /// # Errors
    /// Never for a build that passed its tests; see [`Policy::parse`].
    pub fn builtin() -> Result<Self, PolicyError> {
        Self::parse("built-in", DEFAULT_POLICY)
    }

    /// Parses and validates the text of a policy file. `file` is its name for messages.
    ///
    /// # Errors
    /// Returns all problems: syntax, rules without or with repeated ids, and what does not fit the schema.
    pub fn parse(file: &str, text: &str) -> Result<Self, PolicyError> {
        let fail = |problems: Vec<Problem>| Err(PolicyError { file: file.to_owned(), problems });
        if text.len() > MAX_POLICY_BYTES {
            let reason = format!("{} bytes are more than {MAX_POLICY_BYTES}", text.len());
            return fail(vec![Problem { line: 0, rule: String::new(), reason, remedy: "remove rules".into() }]);
        }
        let parsed = match PolicySet::from_str(text) {
            Ok(parsed) => parsed,
            Err(errors) => return fail(errors.iter().map(|error| syntax_problem(error, text)).collect()),
        };
        let schema = match schema() {
            Ok(schema) => schema,
            Err(reason) => return fail(vec![Problem { line: 0, rule: String::new(), reason, remedy: String::new() }]),
        };
        let mut problems = Vec::new();
        if let Some(template) = parsed.templates().next() {
            let rule = template.annotation(ID).unwrap_or_default().to_owned();
            let remedy = "write the principal and resource instead of ?principal and ?resource".to_owned();
            problems.push(Problem { line: 0, rule, reason: "it is a template".into(), remedy });
        }
        let (set, rules) = name_rules(&parsed, text, &mut problems);
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.line);
            return fail(problems);
        }
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        problems.extend(result.validation_errors().map(|error| {
            schema_problem(error.policy_id(), error, text, &rules, "`wardroom policy schema` prints what rules may use")
        }));
        if !problems.is_empty() {
            // One for each action of a group, in any order.
            problems.sort_by(|a, b| (a.line, &a.rule, &a.reason).cmp(&(b.line, &b.rule, &b.reason)));
            problems.dedup();
            return fail(problems);
        }
        let warnings = result.validation_warnings().map(|warning| {
            schema_problem(warning.policy_id(), warning, text, &rules, "remove the rule, or correct its condition")
        });
        let warnings = warnings.collect();
        let sha256 = sha256_hex(text.as_bytes());
        let text = text.to_owned();
        Ok(Self { set, schema, authorizer: Authorizer::new(), rules, warnings, text, sha256 })
    }

    /// Returns the policy's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the SHA-256 of the policy's text.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the ids of the rules, sorted.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// Returns a rule's reason; its id if it has none.
    pub(crate) fn reason_of(&self, id: &str) -> String {
        let reason = self.rules.get(id).map(|rule| rule.reason.clone()).unwrap_or_default();
        if reason.is_empty() { format!("rule {id}") } else { reason }
    }
}

/// Parses the schema.
fn schema() -> Result<Schema, String> {
    // The warnings are about names that hide built-in types, of which the schema has none.
    Schema::from_cedarschema_str(SCHEMA).map(|(schema, _)| schema).map_err(|error| error.to_string())
}

/// Gives each rule the id of its annotation. Adds a problem for each rule without one.
fn name_rules(parsed: &PolicySet, text: &str, problems: &mut Vec<Problem>) -> (PolicySet, BTreeMap<String, Rule>) {
    let (mut set, mut rules) = (PolicySet::new(), BTreeMap::new());
    let mut policies: Vec<&CedarPolicy> = parsed.policies().collect();
    // The parser numbers them in the order of the file.
    policies.sort_by_key(|policy| {
        let digits: String = policy.id().to_string().chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().unwrap_or(usize::MAX)
    });
    let mut from = 0;
    for policy in policies {
        let offset = policy.to_cedar().and_then(|own| text.get(from..)?.find(&own).map(|at| (from + at, own.len())));
        let line = offset.map_or(0, |(at, _)| line_of(text, at));
        from = offset.map_or(from, |(at, length)| at + length);
        let id = policy.annotation(ID).unwrap_or_default().trim().to_owned();
        let mut problem = |reason: &str, remedy: &str| {
            problems.push(Problem { line, rule: id.clone(), reason: reason.to_owned(), remedy: remedy.to_owned() });
        };
        let is_word = |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if id.is_empty() {
            problem("the rule has no id", "write @id(\"some-name\") before it");
        } else if id.starts_with(RESERVED_PREFIX) || !is_word(&id) || id.len() > 80 {
            problem("the id is not allowed", "use 1 to 80 letters, digits, - _ .");
        } else if rules.contains_key(&id) {
            problem("another rule has this id", "give each rule an id of its own");
        } else {
            let reason = policy.annotation(REASON).unwrap_or_default().trim().to_owned();
            let forbids = policy.effect() == Effect::Forbid;
            rules.insert(id.clone(), Rule { line, forbids, reason });
            if let Err(error) = set.add(policy.new_id(PolicyId::new(&id))) {
                problem(&error.to_string(), "");
            }
        }
    }
    (set, rules)
}

/// Returns the line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Returns the byte offset that a message of Cedar refers to.
fn offset_of(error: &dyn Diagnostic) -> Option<usize> {
    error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset())
}

fn syntax_problem(error: &cedar_policy::ParseError, text: &str) -> Problem {
    let line = offset_of(error).map_or(0, |offset| line_of(text, offset));
    let help = error.help().map(|help| help.to_string()).unwrap_or_default();
    Problem { line, rule: String::new(), reason: one_line(&error.to_string()), remedy: one_line(&help) }
}

fn schema_problem(
    id: &PolicyId,
    error: &(impl Diagnostic + std::fmt::Display),
    text: &str,
    rules: &BTreeMap<String, Rule>,
    remedy: &str,
) -> Problem {
    let id: &str = id.as_ref();
    let at_rule = rules.get(id).map_or(0, |rule| rule.line);
    let line = offset_of(error).map_or(at_rule, |offset| line_of(text, offset));
    // Cedar's message begins with the rule's id, which is said already.
    let reason = one_line(&error.to_string());
    let prefix = format!("for policy `{id}`, ");
    let reason = without_action(reason.strip_prefix(&prefix).unwrap_or(&reason));
    let help = error.help().map(|help| one_line(&help.to_string()));
    Problem { line, rule: id.to_owned(), reason, remedy: help.unwrap_or_else(|| remedy.to_owned()) }
}

/// Removes the name of the action from a message: it is repeated for each action of a group.
fn without_action(reason: &str) -> String {
    let Some((before, after)) = reason.split_once(" for Action::\"") else { return reason.to_owned() };
    after.split_once('"').map_or_else(|| reason.to_owned(), |(_, after)| format!("{before}{after}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
