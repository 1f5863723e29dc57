//! CPU at its limit.

use wardroom_domain::SignalKind;

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "cpu-hog",
    says: "uses far more CPU than its traffic explains",
    needs: "CPU use above normal without more traffic",
    next_checks: &["Did CPU per request grow, or the number of requests?", "Which thread or function is busy?"],
    tags: &["cpu", "saturated", "throttling", "loop"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let fact = subject.shifted(SignalKind::Saturation, &["cpu", "throttling"])?;
    Some(Match::by_signal(0.68, fact))
}
