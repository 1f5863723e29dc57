//! A database at its connection limit.

use wardroom_domain::{EntityKind, SignalKind};

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "database-connections-exhausted",
    says: "has no connections left",
    needs: "connections of a database near their limit",
    next_checks: &["Which clients hold the connections, and since when?", "Are they idle, or in long transactions?"],
    tags: &["database", "connections", "limit", "exhausted"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let is_store = matches!(subject.suspect.entity.kind, EntityKind::Database | EntityKind::Cache);
    let fact = subject.shifted(SignalKind::Saturation, &["connections", "clients"]).filter(|_| is_store)?;
    Some(Match::by_signal(0.74, fact))
}
