//! A timeout that is too short.

use wardroom_domain::SignalKind;

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "timeout-setting",
    says: "gives up on calls that would succeed",
    needs: "calls that fail without getting slower, while the callee is healthy",
    next_checks: &[
        "Which timeout applies to these calls, and since when?",
        "How long does the callee take by its own numbers?",
    ],
    tags: &["timeout", "deadline", "setting", "client"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let failing = subject.calls_to_healthy(SignalKind::Errors)?;
    let callee = subject.case.suspects.iter().find(|other| Some(other.entity) == failing.signal.peer.as_ref());
    // A callee that gets no requests any more is not reached at all.
    let is_reached = callee.is_none_or(|callee| callee.levels.drop < 0.5);
    if subject.calls_to_healthy(SignalKind::Latency).is_some() || !is_reached {
        return None;
    }
    let because = "its calls fail without getting slower although what it calls is healthy by its own numbers";
    Some(Match::new(0.59, because, vec![Cited::Signal(failing)]))
}
