//! A pool that is too small for its work.

use wardroom_domain::{EntityKind, SignalKind};

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "pool-exhausted",
    says: "has no free connection or worker left in a pool of its own",
    needs: "a pool, its waiting requests or its workers at their limit",
    next_checks: &[
        "Did traffic grow, or did the work of one request take longer?",
        "How large is the pool, and how long do requests wait for it?",
    ],
    tags: &["pool", "exhausted", "threads", "workers", "pending"],
    matches,
};

const RESOURCES: &[&str] = &["connections", "connection-pool", "pending", "threads", "worker-threads", "executor"];

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if subject.suspect.entity.kind == EntityKind::Database {
        return None;
    }
    let waiting = subject.shifted(SignalKind::Queue, RESOURCES);
    let full = subject.full_pool(RESOURCES);
    Some(Match::by_signal(if full.is_some() { 0.7 } else { 0.69 }, full.or(waiting)?))
}
