//! Slow by itself.

use wardroom_domain::SignalKind;

use crate::evidence::{Cited, signal_summary};
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "slow-dependency",
    says: "is slow, and nothing it depends on explains that",
    needs: "latency above normal that no dependency explains",
    next_checks: &["Is it slow for all of its callers?", "What does it wait for: locks, storage, garbage collection?"],
    tags: &["slow", "latency", "dependency", "responses"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let fact = subject.shifted(SignalKind::Latency, &[])?;
    let (_, explained) = subject.case.explained(subject.index);
    let fit = 0.5 + 0.1 * fact.strength() * (1.0 - explained);
    Some(Match::new(fit, signal_summary(fact), vec![Cited::Signal(fact)]))
}
