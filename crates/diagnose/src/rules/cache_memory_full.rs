//! A cache without free memory.

use wardroom_domain::{EntityKind, SignalKind};

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "cache-memory-full",
    says: "has no free memory for new entries",
    needs: "memory or evictions of a cache",
    next_checks: &["Which keys take the memory, and do they expire?", "Which eviction policy is set?"],
    tags: &["cache", "memory", "eviction", "maxmemory"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let is_cache = subject.suspect.entity.kind == EntityKind::Cache;
    let fact = subject.shifted(SignalKind::Saturation, &["memory", "evictions"]).filter(|_| is_cache)?;
    Some(Match::by_signal(0.74, fact))
}
