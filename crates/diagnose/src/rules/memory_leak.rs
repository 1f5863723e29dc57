//! Memory that grows.

use wardroom_domain::SignalKind;

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "memory-leak",
    says: "uses more and more memory",
    needs: "memory above normal without more traffic",
    next_checks: &["How long until the limit at this rate?", "Did the kind of traffic change?"],
    tags: &["memory", "leak", "heap", "resident"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let fact = subject.shifted(SignalKind::Saturation, &["memory", "heap", "memory-pressure"])?;
    Some(Match::by_signal(0.68, fact))
}
