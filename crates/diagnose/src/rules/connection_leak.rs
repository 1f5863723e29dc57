//! Connections that are not returned to their pool.

use wardroom_domain::{EntityKind, SignalKind};

use super::{Cited, Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "connection-leak",
    says: "does not return connections to its pool",
    needs: "connections in use above normal without more traffic, or calls that wait and fail while the callee is healthy",
    next_checks: &["Compare connections in use with the pool's size", "Does the callee answer others in time?"],
    tags: &["connection", "pool", "leak", "exhausted"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if subject.suspect.entity.kind == EntityKind::Database || subject.is_asked_for_more() {
        return None;
    }
    if let Some(fact) = subject.shifted(SignalKind::Saturation, &["connections", "connection-pool"]) {
        return Some(Match::by_signal(0.71, fact));
    }
    // Without numbers of the pool: calls wait for a connection and then fail, though the callee answers well.
    let failing = subject.calls_to_healthy(SignalKind::Errors)?;
    let slow = subject.calls_to_healthy(SignalKind::Latency);
    let fit = if slow.is_some() { 0.62 } else { 0.5 };
    let because = "its calls wait or fail although what it calls is healthy by its own numbers";
    Some(Match::new(fit, because, std::iter::once(failing).chain(slow).map(Cited::Signal).collect()))
}
