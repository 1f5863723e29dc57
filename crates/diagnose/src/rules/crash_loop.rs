//! A process that ends again and again.

use wardroom_domain::{EventKind, SignalKind};

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "crash-loop",
    says: "ends and is started again and again",
    needs: "restarts within the window, several restart events, or containers that wait to be started once more",
    next_checks: &[
        "What are the last log lines before it ends, and its exit code?",
        "Was its version, configuration or a dependency changed?",
    ],
    tags: &["crash", "restart", "exit", "backoff"],
    matches,
};

/// Fewer restarts may be a deployment.
const MIN_RESTARTS: usize = 3;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if let Some(fact) = subject.shifted(SignalKind::Restarts, &[]) {
        return Some(Match::by_signal(0.72, fact));
    }
    if let Some(fact) = subject.shifted(SignalKind::Availability, &["crash-loop"]) {
        return Some(Match::by_signal(0.76, fact));
    }
    let restarts = subject
        .suspect
        .events
        .iter()
        .filter(|event| event.kind == EventKind::Restart && subject.onset.seconds_since(event.at) <= 120.0);
    let cited: Vec<Cited<'a>> = restarts.map(|event| Cited::Event(event)).collect();
    let count = cited.len();
    (count >= MIN_RESTARTS).then(|| Match::new(0.85, format!("it was started {count} times"), cited))
}
