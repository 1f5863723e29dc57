//! A consumer that takes nothing from its queue.

use wardroom_domain::SignalKind;

use crate::evidence::{Cited, signal_summary};
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "consumer-stopped",
    says: "takes nothing from its queue any more",
    needs: "a queue that grows, and a consumer that is down or takes nothing, or a queue that lost all its consumers",
    next_checks: &["Is the consumer's process running?", "Is it blocked on one message or on a dependency?"],
    tags: &["queue", "consumer", "stopped", "backlog", "worker"],
    matches,
};

/// A drop of this level means that next to nothing is taken.
const STOPPED: f64 = 0.85;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if let Some(consumers) = subject.lost("consumers") {
        let says = Some("has no consumer any more");
        let because = signal_summary(consumers);
        let reservation = Some("its consumers are not connected any more, and which they are cannot be seen");
        return Some(Match { says, reservation, ..Match::new(0.9, because, vec![Cited::Signal(consumers)]) });
    }
    let (share, store, symptom) = subject.starved()?;
    let levels = subject.suspect.levels;
    // What is still taken now and then, and takes long, has not stopped.
    let taken = subject.case.edge(subject.index, store).filter(|fact| fact.signal.kind == SignalKind::Traffic);
    let taken = taken.map(|fact| fact.value).reduce(f64::max).or(levels.requests);
    let is_slow = subject.shifted(SignalKind::Latency, &[]).is_some() && taken.is_some_and(|rate| rate > 0.0);
    if levels.down < 0.5 && (levels.drop < STOPPED || is_slow) {
        return None;
    }
    let because = format!("it takes nothing from {}, which fills", subject.case.suspects[store].entity);
    let own = subject.suspect.own.iter().filter(|fact| fact.is_gone || fact.value < fact.expected);
    let cited = std::iter::once(symptom).chain(own.copied().take(2)).map(Cited::Signal).collect();
    Some(Match::new(0.75 + 0.2 * share, because, cited))
}
