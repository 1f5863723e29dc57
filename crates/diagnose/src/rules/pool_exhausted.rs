//! A pool that is too small for its work.

use wardroom_domain::{EntityKind, SignalKind};
use wardroom_signals::SignalUnit;

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

/// A pool is at its limit from this share on.
const FULL: f64 = 0.85;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if subject.suspect.entity.kind == EntityKind::Database {
        return None;
    }
    let waiting = subject.shifted(SignalKind::Queue, RESOURCES);
    let full = subject.suspect.own.iter().copied().find(|fact| {
        let is_pool = fact.signal.kind == SignalKind::Saturation && RESOURCES.contains(&fact.signal.resource.as_str());
        is_pool && fact.unit == SignalUnit::Ratio && fact.value >= FULL && fact.is_shifted()
    });
    Some(Match::by_signal(if full.is_some() { 0.7 } else { 0.69 }, full.or(waiting)?))
}
