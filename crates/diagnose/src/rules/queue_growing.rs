//! A queue that grows, its consumer unknown.

use wardroom_domain::SignalKind;

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "queue-growing",
    says: "fills, and nothing that drains it can be seen",
    needs: "a queue that grows",
    next_checks: &["Who should drain it, and is that running?", "Is more put in than usual?"],
    tags: &["queue", "backlog", "lag", "depth"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let fact = subject.shifted(SignalKind::Queue, &[])?;
    Some(Match::by_signal(0.6, fact))
}
