//! File descriptors that are not closed.

use wardroom_domain::SignalKind;

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "descriptor-leak",
    says: "opens file descriptors and does not close them",
    needs: "open file descriptors above normal, and no more requests under way that hold them",
    next_checks: &["Which kind of descriptors: sockets or files?", "How long until the limit at this rate?"],
    tags: &["descriptors", "files", "sockets", "leak"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if subject.is_asked_for_more() {
        return None;
    }
    let fact = subject.shifted(SignalKind::Saturation, &["file-descriptors"])?;
    if subject.is_held_by_requests(fact) {
        return None;
    }
    Some(Match::by_signal(0.71, fact))
}
