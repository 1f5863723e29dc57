//! Connections that are not returned to their pool.

use wardroom_domain::{EntityKind, SignalKind};
use wardroom_signals::SignalUnit;

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "connection-leak",
    says: "does not return connections to its pool",
    needs: "connections far above normal without more traffic, or calls that wait and fail at a healthy callee",
    next_checks: &["Compare connections in use with the pool's size", "Does the callee answer others in time?"],
    tags: &["connection", "pool", "leak", "exhausted"],
    matches,
};

/// A pool is at its limit from this share on.
const FULL: f64 = 0.85;
/// Connections above normal that are many for a pool of unknown size.
const MANY_CONNECTIONS: f64 = 5.0;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if subject.suspect.entity.kind == EntityKind::Database || subject.is_asked_for_more() {
        return None;
    }
    if let Some(fact) = subject.shifted(SignalKind::Saturation, &["connections", "connection-pool"]) {
        // A pool that merely works harder, since requests take longer, leaks nothing.
        let is_full = fact.unit == SignalUnit::Ratio && fact.value >= FULL;
        let is_limitless = fact.unit != SignalUnit::Ratio && fact.value - fact.expected >= MANY_CONNECTIONS;
        if is_full || (is_limitless && !subject.is_held_by_requests(fact)) {
            return Some(Match::by_signal(0.71, fact));
        }
    }
    // Without numbers of the pool: calls wait for a connection and then fail, though the callee answers well.
    let failing = subject.calls_to_healthy(SignalKind::Errors)?;
    let slow = subject.calls_to_healthy(SignalKind::Latency);
    let fit = if slow.is_some() { 0.62 } else { 0.5 };
    let because = "its calls wait or fail although what it calls is healthy by its own numbers";
    Some(Match::new(fit, because, std::iter::once(failing).chain(slow).map(Cited::Signal).collect()))
}
