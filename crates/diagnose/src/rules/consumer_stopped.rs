//! A consumer that takes nothing from its queue.

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "consumer-stopped",
    says: "takes nothing from its queue any more",
    needs: "a queue that grows, and a consumer that is down or takes nothing",
    next_checks: &["Is the consumer's process running?", "Is it blocked on one message or on a dependency?"],
    tags: &["queue", "consumer", "stopped", "backlog", "worker"],
    matches,
};

/// A drop of this level means that next to nothing is taken.
const STOPPED: f64 = 0.85;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let (share, store, symptom) = subject.starved()?;
    let levels = subject.suspect.levels;
    if levels.down < 0.5 && levels.drop < STOPPED {
        return None;
    }
    let because = format!("it takes nothing from {}, which fills", subject.case.suspects[store].entity);
    let own = subject.suspect.own.iter().filter(|fact| fact.is_gone || fact.value < fact.expected);
    let cited = std::iter::once(symptom).chain(own.copied().take(2)).map(Cited::Signal).collect();
    Some(Match::new(0.75 + 0.2 * share, because, cited))
}
