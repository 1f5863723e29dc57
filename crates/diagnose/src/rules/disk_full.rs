//! A file system that fills.

use wardroom_domain::{EntityKind, SignalKind};

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "disk-full",
    says: "has a file system that is full or fills",
    needs: "use of a file system",
    next_checks: &["What grows: logs, data, temporary files?", "How long until it is full at this rate?"],
    tags: &["disk", "filesystem", "space", "full", "volume"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let named = subject.shifted(SignalKind::Saturation, &["disk", "disk-free", "inodes", "volume"]);
    let is_filesystem = subject.suspect.entity.kind == EntityKind::Filesystem;
    let any = || subject.shifted(SignalKind::Saturation, &[]).filter(|_| is_filesystem);
    Some(Match::by_signal(0.74, named.or_else(any)?))
}
