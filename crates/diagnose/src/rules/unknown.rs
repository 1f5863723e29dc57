//! No rule fits.

use crate::evidence::{Cited, signal_summary};
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "unknown",
    says: "differs from before, by a mechanism that no rule names",
    needs: "any shift",
    next_checks: &["What changed at this entity or at what it depends on?", "Which of its signals changed first?"],
    tags: &[],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let shifted = subject.suspect.own.iter().filter(|fact| fact.is_shifted());
    let strongest = shifted.max_by(|a, b| a.strength().total_cmp(&b.strength()));
    let because = strongest.map_or_else(|| "what it is connected with differs".into(), |fact| signal_summary(fact));
    Some(Match::new(0.05, because, strongest.into_iter().map(|fact| Cited::Signal(fact)).collect()))
}
