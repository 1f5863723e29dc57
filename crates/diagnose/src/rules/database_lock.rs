//! A database whose statements wait for a lock.

use wardroom_domain::{EntityKind, SignalKind};

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "database-lock",
    says: "has statements that wait for locks",
    needs: "locks, waiting statements or long transactions of a database",
    next_checks: &[
        "Which transaction holds the lock, and what does it wait for?",
        "Did a migration or a batch job start?",
    ],
    tags: &["database", "lock", "transaction", "deadlock", "blocked"],
    matches,
};

const RESOURCES: &[&str] =
    &["locks", "lock-waits", "deadlocks", "idle-in-transaction", "transaction-age", "active-queries"];

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let is_database = subject.suspect.entity.kind == EntityKind::Database;
    let kinds = [SignalKind::Saturation, SignalKind::Queue, SignalKind::Freshness, SignalKind::Other];
    let fact = kinds.iter().find_map(|kind| subject.shifted(*kind, RESOURCES)).filter(|_| is_database)?;
    Some(Match::by_signal(0.73, fact))
}
