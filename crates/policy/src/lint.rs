//! Lint: rules that have no effect.
//!
//! Cedar's validator finds rules whose condition is impossible by its types. For the rest, each rule is asked in some
//! thousand situations that are combined from the words and numbers in the file: one that never matches is probably
//! unreachable; one that matches only where another of the same effect matches adds nothing. The situations are the
//! same at every run.

mod combined_situations;

use std::collections::BTreeMap;
use std::fmt;

use cedar_policy::{Effect, PolicySet};
use serde::Serialize;

use combined_situations::{Combined, CombinedSituations, wardroom_needs_two};

use crate::cedar_request::CedarRequest;
use crate::decide::{APPROVE, WAYS};
use crate::rules::Policy;

/// Number of situations in which each rule is asked.
const SITUATIONS: u32 = 3000;
/// A rule has to match this often before it is said to add nothing.
const MIN_MATCHES: usize = 20;

/// Something odd about a policy that does not keep it from being used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Line of the rule, from 1; 0 if it is about the whole file.
    pub line: usize,
    /// Id of the rule; empty if it is about the whole file.
    pub rule: String,
    /// What is odd, and what to do about it.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule.as_str() {
            "" => f.write_str(&self.detail),
            rule => write!(f, "line {}, rule {rule}: {}", self.line, self.detail),
        }
    }
}

/// Finds rules without effect in a policy. `text` is its text.
pub fn lint(policy: &Policy, text: &str) -> Vec<Finding> {
    let impossible = policy.warnings.iter().map(|problem| {
        let detail = format!("{}; {}", problem.reason, problem.remedy);
        Finding { line: problem.line, rule: problem.rule.clone(), detail }
    });
    let mut findings: Vec<Finding> = impossible.collect();
    let mut add = |rule: &str, detail: String| {
        let line = policy.rules.get(rule).map_or(0, |rule| rule.line);
        if !findings.iter().any(|known| known.rule == rule) {
            findings.push(Finding { line, rule: rule.to_owned(), detail });
        }
    };
    let matches = matches(policy, text);
    for (id, matched) in &matches {
        if policy.rules.get(id).is_some_and(|rule| rule.reason.is_empty()) {
            add(id, "it has no reason; write @reason(\"…\"), which people read".to_owned());
        }
        if matched.is_empty() {
            let detail = format!("it matched in none of {SITUATIONS} situations; correct its condition, or remove it");
            add(id, detail);
        } else if let Some(wider) = wider_rule(policy, &matches, id, matched) {
            add(id, format!("wherever it matches, {wider} does, too; remove one of them"));
        }
    }
    if !wardroom_needs_two(policy) {
        let detail = "one person, or none, may change the host, store or bus of Wardroom itself; \
            copy the rule wardroom-needs-two of the built-in policy";
        findings.push(Finding { line: 0, rule: String::new(), detail: detail.to_owned() });
    }
    findings.sort();
    findings
}

/// Returns another rule of the same effect that matches wherever this one does.
fn wider_rule<'a>(
    policy: &Policy,
    matches: &'a BTreeMap<String, Vec<u32>>,
    id: &str,
    matched: &[u32],
) -> Option<&'a str> {
    let forbids = |id: &str| policy.rules.get(id).map(|rule| rule.forbids);
    let is_within = |other: &[u32]| {
        let mut other = other.iter();
        matched.iter().all(|sample| other.any(|found| found == sample))
    };
    let line = |id: &str| policy.rules.get(id).map(|rule| rule.line);
    let found = matches.iter().find(|(other, found)| {
        // Of two that match in the same situations, the later one is reported.
        let is_wider = found.len() > matched.len() || found.len() == matched.len() && line(other) < line(id);
        *other != id && is_wider && forbids(other) == forbids(id) && is_within(found)
    });
    found.filter(|_| matched.len() >= MIN_MATCHES).map(|(other, _)| other.as_str())
}

/// Returns the situations in which each rule matches, in ascending order.
///
/// Cedar names only the rules that decide, and one that forbids hides those that permit; so each effect is asked alone.
fn matches(policy: &Policy, text: &str) -> BTreeMap<String, Vec<u32>> {
    let mut found: BTreeMap<String, Vec<u32>> = policy.rule_ids().map(|id| (id.to_owned(), Vec::new())).collect();
    let of_effect = |effect: Effect| {
        let rules = policy.set.policies().filter(|rule| rule.effect() == effect).cloned();
        PolicySet::from_policies(rules).unwrap_or_default()
    };
    let sets = [of_effect(Effect::Permit), of_effect(Effect::Forbid)];
    let mut situations = CombinedSituations::new(text);
    for situation in 0..SITUATIONS {
        let actions: Vec<(CedarRequest, &str)> = match situations.next_request(&policy.schema) {
            Combined::Action(request) => WAYS.iter().map(|(way, _)| (request.clone(), *way)).collect(),
            Combined::Approval(request) => vec![(request, APPROVE)],
            Combined::Invalid => continue,
        };
        for (way, (request, action)) in (0_u32..).zip(&actions) {
            let Ok(cedar) = request.with_action(action, &policy.schema) else { continue };
            for set in &sets {
                let response = policy.authorizer.is_authorized(&cedar, set, &request.entities);
                for id in response.diagnostics().reason() {
                    let matched = found.entry(AsRef::<str>::as_ref(id).to_owned()).or_default();
                    matched.push(situation * 4 + way);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::DEFAULT_POLICY;

    #[test]
    fn the_built_in_policy_has_no_findings() {
        let policy = Policy::builtin().unwrap();
        assert_eq!(lint(&policy, DEFAULT_POLICY), []);
    }

    #[test]
    fn unreachable_overlapping_and_unexplained_rules_are_found() {
        let text = r#"
@id("all") @reason("r")
permit (principal, action in Action::"act", resource);
@id("narrow") @reason("r")
permit (principal, action in Action::"act", resource) when { context.risk == "low" };
@id("same") @reason("r")
permit (principal, action in Action::"act", resource);
@id("contradiction") @reason("r")
forbid (principal, action in Action::"act", resource)
when { context.risk == "low" && context.risk == "high" };
@id("impossible") @reason("r")
forbid (principal is Person, action in Action::"act", resource) when { principal is Service };
@id("silent")
forbid (principal, action in Action::"act", resource) when { resource.owner == "billing" };
"#;
        let policy = Policy::parse("p.cedar", text).unwrap();
        let lines: Vec<String> = lint(&policy, text).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
