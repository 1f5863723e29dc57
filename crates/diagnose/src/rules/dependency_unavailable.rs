//! Calls that fail at something that cannot be seen.

use wardroom_domain::SignalKind;

use crate::evidence::{Cited, signal_summary};
use crate::facts::SignalFact;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "dependency-unavailable",
    says: "does not answer its callers, by their numbers",
    needs: "failing or slow calls to an entity without signals of its own",
    next_checks: &["Is it up, and reachable from its callers?", "Do all of its callers see the same?"],
    tags: &["dependency", "unavailable", "external", "timeout", "unreachable"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if subject.suspect.is_seen() {
        return None;
    }
    let is_symptom =
        |fact: &&&SignalFact| matches!(fact.signal.kind, SignalKind::Errors | SignalKind::Latency) && fact.is_shifted();
    let called = subject.suspect.called.iter().filter(is_symptom);
    let fact = called.max_by(|a, b| a.strength().total_cmp(&b.strength()))?;
    let because = format!("{} sees: {}", fact.signal.entity, signal_summary(fact));
    Some(Match::new(0.6 + 0.2 * fact.strength(), because, vec![Cited::Signal(fact)]))
}
