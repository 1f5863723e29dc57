//! A slow path between two healthy ends.

use wardroom_domain::SignalKind;

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "network-delay",
    says: "waits longer for answers than its callees take",
    needs: "calls that take longer at the caller than at the callee",
    next_checks: &["Is the path slow for other callers, too?", "Are there retransmissions or a changed route?"],
    tags: &["network", "delay", "latency", "packet"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let slow = subject.calls_to_healthy(SignalKind::Latency)?;
    let because = "its calls take longer although what it calls is as fast as before by its own numbers";
    Some(Match::new(0.61, because, vec![Cited::Signal(slow)]))
}
