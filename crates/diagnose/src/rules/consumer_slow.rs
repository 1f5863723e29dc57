//! A consumer that is slower than its queue fills.

use wardroom_domain::SignalKind;

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "consumer-slow",
    says: "takes less from its queue than comes in",
    needs: "a queue that grows, and a consumer that takes less than before or is slow",
    next_checks: &["How long does one message take, compared with before?", "Does it wait for a dependency?"],
    tags: &["queue", "consumer", "slow", "lag", "backlog"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let (share, store, symptom) = subject.starved()?;
    let because = format!("it takes less from {} than before, which fills", subject.case.suspects[store].entity);
    let own = subject.shifted(SignalKind::Latency, &[]);
    let cited = std::iter::once(symptom).chain(own).map(Cited::Signal).collect();
    Some(Match::new(0.72 + 0.2 * share, because, cited))
}
