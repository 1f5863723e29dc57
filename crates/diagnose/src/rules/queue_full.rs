//! A consumer so slow that its queue refuses work.

use wardroom_domain::SignalKind;

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "queue-full",
    says: "falls behind until its queue refuses work",
    needs: "a queue that refuses work, and a consumer that takes less than before or is slow",
    next_checks: &["How long does one message take, compared with before?", "Is one message retried again and again?"],
    tags: &["queue", "backlog", "full", "consumer", "refused"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let (share, store, _) = subject.starved()?;
    let queue = &subject.case.suspects[store];
    let refused = queue.shifted(SignalKind::Errors, &[])?;
    let because = format!("it takes less from {} than before, which now refuses work", queue.entity);
    let own = subject.shifted(SignalKind::Latency, &[]);
    let cited = std::iter::once(refused).chain(own).map(Cited::Signal).collect();
    Some(Match::new(0.74 + 0.2 * share, because, cited))
}
