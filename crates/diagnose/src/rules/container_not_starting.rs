//! Containers that cannot start.

use wardroom_domain::SignalKind;

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "container-not-starting",
    says: "has containers that cannot start",
    needs: "containers that wait to start, for an image or for their configuration",
    next_checks: &[
        "Does the image exist under this name, and may the node pull it?",
        "Do all secrets and configuration maps that it refers to exist?",
    ],
    tags: &["container", "image", "pull", "start", "configuration"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let waiting = subject.shifted(SignalKind::Availability, &["image-pull", "container-start", "containers"])?;
    Some(Match::by_signal(0.75, waiting))
}
