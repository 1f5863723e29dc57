//! A container killed at its memory limit.

use wardroom_domain::{EntityKind, EventKind, SignalKind};

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "oom-kill",
    says: "is killed because it reaches its memory limit",
    needs: "a kill for lack of memory, or restarts at the memory limit",
    next_checks: &["How much memory does it use shortly before it is killed?", "Did its limit or its input change?"],
    tags: &["oom", "memory", "limit", "kill", "restart"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    // The counter of a machine tells about one of its processes.
    if subject.suspect.entity.kind == EntityKind::Node {
        return None;
    }
    if let Some(fact) = subject.shifted(SignalKind::Restarts, &["oom-kill", "oom-killed"]) {
        return Some(Match::by_signal(0.76, fact));
    }
    // Kills repeat, so the newest may be long after the onset.
    let event = subject.suspect.events.iter().rfind(|event| event.kind == EventKind::OomKill)?;
    Some(Match::new(0.94, "it was killed because its memory limit was reached", vec![Cited::Event(event)]))
}
