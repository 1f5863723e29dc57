//! Connections that are not returned to their pool.

use wardroom_domain::SignalKind;
use wardroom_signals::SignalUnit;

use crate::evidence::Cited;
use crate::facts::is_store;
use crate::rule::{FULL_POOL, Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "connection-leak",
    says: "does not return connections to its pool",
    needs: "connections far above what requests hold, or calls that wait and fail at a healthy callee",
    next_checks: &["Compare connections in use with the pool's size", "Does the callee answer others in time?"],
    tags: &["connection", "pool", "leak", "exhausted"],
    matches,
};

/// Pools whose members a request holds while it is served: full ones hold connections, too.
const WORKERS: &[&str] = &["worker-threads", "threads", "executor", "in-flight", "active-requests"];
/// Connections above normal that are many for a pool of unknown size.
const MANY_CONNECTIONS: f64 = 5.0;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    // Requests that wait for a connection are under way, too: only workers without a free one explain held connections.
    let has_no_free_worker = subject.full_pool(WORKERS).is_some();
    if is_store(subject.suspect.entity) || subject.is_asked_for_more() || has_no_free_worker {
        return None;
    }
    if let Some(fact) = subject.shifted(SignalKind::Saturation, &["connections", "connection-pool"]) {
        let is_ratio = fact.unit == SignalUnit::Ratio;
        let is_many = if is_ratio { fact.value >= FULL_POOL } else { fact.value - fact.expected >= MANY_CONNECTIONS };
        // A pool that merely works harder, since requests take longer, leaks nothing. If what is called answers as
        // fast as before, requests wait for a connection and do not hold one.
        if is_many && (subject.callees_are_fast() || !subject.is_held_by_requests(fact)) {
            return Some(Match::by_signal(0.71, fact));
        }
    }
    // Without numbers of the pool: calls wait for a connection and then fail, though the callee answers well.
    let failing = subject.calls_that_wait_here(SignalKind::Errors)?;
    let slow = subject.calls_that_wait_here(SignalKind::Latency)?;
    let because = "its calls wait and fail although what it calls is healthy by its own numbers";
    let says =
        Some("does not get through in time to what it calls, as when connections are not returned to their pool");
    Some(Match { says, ..Match::new(0.62, because, vec![Cited::Signal(failing), Cited::Signal(slow)]) })
}
