//! A machine at its limit.

use wardroom_domain::{EntityKind, SignalKind};

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "node-saturated",
    says: "is at the limit of its CPU, memory or disk",
    needs: "saturation of a machine",
    next_checks: &["Which process or container uses it?", "Is work scheduled elsewhere possible?"],
    tags: &["node", "host", "cpu", "memory", "pressure"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let is_node = subject.suspect.entity.kind == EntityKind::Node;
    Some(Match::by_signal(0.72, subject.shifted(SignalKind::Saturation, &[]).filter(|_| is_node)?))
}
